//! API keys: `dofs_<environment>_<id>_<secret>`. People and scanners for leaked secrets recognise a key by
//! its prefix. Only a hash of the secret is stored.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Principal, Scope};
use crate::clock::Clock;

const PREFIX: &str = "dofs";
/// Prefix of a key's id in the metadata of events.
pub(super) const ACTOR_PREFIX: &str = "api-key:";
/// Maximum length of a key's id, in characters.
pub(super) const MAX_ID_CHARS: usize = 32;
/// Length of a secret, in bytes.
const SECRET_BYTES: usize = 32;

/// The secret of a key. Only its token contains it: `Debug` omits the secret.
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// Returns the secret with these random bytes.
    pub fn of(random: [u8; SECRET_BYTES]) -> Self {
        Self(random)
    }

    /// Returns the hash that is stored, in hexadecimal.
    pub fn sha256(&self) -> String {
        // The hash is that of the token's text, so that a sent secret is hashed as it is.
        hex::encode(sha256(&hex::encode(self.0)))
    }

    /// Returns the token that clients send, for the key with this id.
    pub fn token(&self, environment: &str, id: &str) -> String {
        format!("{PREFIX}_{environment}_{id}_{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A token that a client has sent.
pub struct Token<'a> {
    environment: &'a str,
    id: &'a str,
    secret: &'a str,
}

impl<'a> Token<'a> {
    /// Parses a token; `None` if the text has another form.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('_');
        let (prefix, environment) = (parts.next()?, parts.next()?);
        let (id, secret) = (parts.next()?, parts.next()?);
        let is_token = prefix == PREFIX && parts.next().is_none();
        is_token.then_some(Self { environment, id, secret })
    }

    /// Returns the id of the key.
    pub fn id(&self) -> &'a str {
        self.id
    }
}

/// A key as it is stored.
#[derive(Debug, Clone)]
pub struct ApiKey {
    pub id: String,
    /// Tenant whose orders the key places and reads; `None`: all tenants.
    pub tenant: Option<String>,
    pub scopes: Vec<Scope>,
    /// SHA-256 of the secret, in hexadecimal.
    pub secret_sha256: String,
    /// Time from which the key is refused; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// The keys of one environment that are not revoked.
#[derive(Debug)]
pub struct ApiKeys {
    environment: String,
    keys: HashMap<String, ApiKey>,
}

impl ApiKeys {
    /// Returns the set of these keys.
    pub fn new(environment: &str, keys: impl IntoIterator<Item = ApiKey>) -> Self {
        let keys = keys.into_iter().map(|key| (key.id.clone(), key)).collect();
        Self { environment: environment.to_owned(), keys }
    }

    /// Returns the key of a principal.
    fn of(&self, principal: &Principal) -> Option<&ApiKey> {
        principal.actor.strip_prefix(ACTOR_PREFIX).and_then(|id| self.keys.get(id))
    }

    /// Returns the principal of a token; `None` if the key is unknown or has expired, or the secret is
    /// wrong.
    pub fn principal(&self, token: &Token<'_>, now: Timestamp) -> Option<Principal> {
        let sent = hex::encode(sha256(token.secret));
        let key = self.keys.get(token.id);
        // Compared for unknown keys too, and in constant time: the duration must not show which part of a
        // token is right.
        let stored = key.map_or("", |key| &key.secret_sha256);
        let is_right = bool::from(sent.as_bytes().ct_eq(stored.as_bytes()));
        let key = key.filter(|_| is_right && token.environment == self.environment)?;
        if key.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return None;
        }
        Some(Principal {
            actor: format!("{ACTOR_PREFIX}{}", key.id),
            tenant: key.tenant.clone(),
            scopes: key.scopes.clone(),
        })
    }
}

/// The keys as the event store last had them. The sender of the channel reads them. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing(watch::Receiver<Option<Arc<ApiKeys>>>);

impl KeyRing {
    /// Returns a ring with the last keys of the channel, which holds `None` until they are known.
    pub fn new(keys: watch::Receiver<Option<Arc<ApiKeys>>>) -> Self {
        Self(keys)
    }

    pub(super) fn current(&self) -> Option<Arc<ApiKeys>> {
        self.0.borrow().clone()
    }

    /// Waits until a principal's key is revoked or has expired.
    pub(super) async fn ended(&self, principal: &Principal, clock: &Clock) {
        let mut keys = self.0.clone();
        loop {
            // Mark the keys as seen before they are checked: a change in between wakes `changed`
            // below.
            let known = keys.borrow_and_update().clone();
            let Some(key) = known.as_ref().and_then(|keys| keys.of(principal)) else { return };
            let left = key.expires_at.map(|expires_at| expires_at.duration_since(clock.now()));
            let expired = async {
                match left {
                    // A negative duration: the key has expired.
                    Some(left) => sleep(Duration::try_from(left).unwrap_or_default()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = keys.changed() => if changed.is_err() { return },
                () = expired => return,
            }
        }
    }
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRES: i64 = 100;

    fn keys() -> ApiKeys {
        let key = |id: &str, byte: u8, expires_at| ApiKey {
            id: id.to_owned(),
            tenant: Some("shop".to_owned()),
            scopes: vec![Scope::OrdersRead],
            secret_sha256: Secret::of([byte; 32]).sha256(),
            expires_at,
        };
        let expires = Timestamp::from_second(EXPIRES).unwrap();
        ApiKeys::new("dev", [key("a", 1, None), key("b", 2, Some(expires))])
    }

    fn actor(token: &str, second: i64) -> Option<String> {
        let now = Timestamp::from_second(second).unwrap();
        Token::parse(token).and_then(|token| keys().principal(&token, now)).map(|found| found.actor)
    }

    #[test]
    fn token_with_the_right_secret_is_accepted() {
        let token = Secret::of([1; 32]).token("dev", "a");
        assert!(token.starts_with("dofs_dev_a_0101"), "{token}");
        assert_eq!(actor(&token, 0), Some("api-key:a".to_owned()));
    }

    #[test]
    fn other_tokens_are_refused() {
        let right = Secret::of([1; 32]);
        let cut = right.token("dev", "a");
        let wrong = [
            Secret::of([2; 32]).token("dev", "a"),
            right.token("production", "a"),
            right.token("dev", "c"),
            cut[..cut.len() - 1].to_owned(),
            format!("{cut}_"),
            "dofs_dev_a_".to_owned(),
            "dofs_dev_c_".to_owned(),
            "___".to_owned(),
            String::new(),
        ];
        for token in wrong {
            assert_eq!(actor(&token, 0), None, "{token}");
        }
    }

    #[tokio::test]
    async fn principal_ends_when_its_key_expires_or_is_revoked() {
        let soon = Timestamp::from_millisecond(EXPIRES * 1_000 - 20).unwrap();
        let clock = Clock::new(move || soon, uuid::Uuid::nil);
        let (sender, receiver) = watch::channel(Some(Arc::new(keys())));
        let ring = KeyRing::new(receiver);
        let principal =
            |id: &str| Principal { actor: format!("{ACTOR_PREFIX}{id}"), ..Principal::anonymous() };
        let (lasting, expiring) = (principal("a"), principal("b"));
        let mut ended = std::pin::pin!(ring.ended(&lasting, &clock));
        tokio::select! {
            () = &mut ended => panic!("the key is valid"),
            () = ring.ended(&expiring, &clock) => {}
        }
        sender.send_replace(Some(Arc::new(ApiKeys::new("dev", []))));
        ended.await;
    }

    #[test]
    fn key_is_refused_after_its_expiry() {
        let token = Secret::of([2; 32]).token("dev", "b");
        assert!(actor(&token, EXPIRES - 1).is_some());
        assert!(actor(&token, EXPIRES).is_none());
    }
}
