//! API keys: `dofs_<env>_<id>_<secret>`. The prefix is for people and for scanners that look for
//! leaked secrets; of the secret only a hash is kept.

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
/// What the audit calls a key, before its id.
pub(super) const ACTOR_PREFIX: &str = "api-key:";
/// The longest id of a key.
pub(super) const MAX_ID_CHARS: usize = 32;
/// The length of a secret, in bytes.
const SECRET_BYTES: usize = 32;

/// The secret of a key. It is shown once, in its token, and cannot be printed otherwise.
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// A secret made of random bytes.
    pub fn of(random: [u8; SECRET_BYTES]) -> Self {
        Self(random)
    }

    /// What is kept of it, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex::encode(sha256(&hex::encode(self.0)))
    }

    /// What the user of the key of this id shows.
    pub fn token(&self, environment: &str, id: &str) -> String {
        format!("{PREFIX}_{environment}_{id}_{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A key as a client shows it.
pub struct Token<'a> {
    environment: &'a str,
    id: &'a str,
    secret: &'a str,
}

impl<'a> Token<'a> {
    /// The parts of a token; `None` if it is none of ours.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('_');
        let (prefix, environment) = (parts.next()?, parts.next()?);
        let (id, secret) = (parts.next()?, parts.next()?);
        let is_ours = prefix == PREFIX && parts.next().is_none();
        is_ours.then_some(Self { environment, id, secret })
    }

    /// The id of the key.
    pub fn id(&self) -> &'a str {
        self.id
    }
}

/// What is known of a key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    pub id: String,
    /// Whose orders it places and sees; `None`: everybody's.
    pub tenant: Option<String>,
    pub scopes: Vec<Scope>,
    /// Of the secret, in hexadecimal.
    pub secret_sha256: String,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// The keys of one environment that are not revoked.
#[derive(Debug)]
pub struct ApiKeys {
    environment: String,
    keys: HashMap<String, ApiKey>,
}

impl ApiKeys {
    /// These keys.
    pub fn new(environment: &str, keys: impl IntoIterator<Item = ApiKey>) -> Self {
        let keys = keys.into_iter().map(|it| (it.id.clone(), it)).collect();
        Self { environment: environment.to_owned(), keys }
    }

    /// The key of a principal.
    fn of(&self, principal: &Principal) -> Option<&ApiKey> {
        principal.actor.strip_prefix(ACTOR_PREFIX).and_then(|it| self.keys.get(it))
    }

    /// Who shows this token, unless the key is unknown, another's, or has expired.
    pub fn principal(&self, token: &Token<'_>, now: Timestamp) -> Option<Principal> {
        let shown = hex::encode(sha256(token.secret));
        let key = self.keys.get(token.id);
        // Compared in any case and in constant time: the time tells nothing of what is right.
        let kept = key.map_or("", |it| &it.secret_sha256);
        let is_right = bool::from(shown.as_bytes().ct_eq(kept.as_bytes()));
        let key = key.filter(|_| is_right && token.environment == self.environment)?;
        if key.expires_at.is_some_and(|it| it <= now) {
            return None;
        }
        Some(Principal {
            actor: format!("{ACTOR_PREFIX}{}", key.id),
            tenant: key.tenant.clone(),
            scopes: key.scopes.clone(),
        })
    }
}

/// The keys as they were last seen; somebody else looks. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing(watch::Receiver<Option<Arc<ApiKeys>>>);

impl KeyRing {
    /// A ring that shows what is sent to it; `None` until the keys are known.
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
            let known = keys.borrow_and_update().clone();
            let Some(key) = known.as_ref().and_then(|it| it.of(principal)) else { return };
            let left = key.expires_at.map(|it| it.duration_since(clock.now()));
            let expired = async {
                match left {
                    // What is past already is no time at all.
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
        Token::parse(token).and_then(|it| keys().principal(&it, now)).map(|it| it.actor)
    }

    #[test]
    fn key_is_known_by_its_secret() {
        let token = Secret::of([1; 32]).token("dev", "a");
        assert!(token.starts_with("dofs_dev_a_0101"), "{token}");
        assert_eq!(actor(&token, 0), Some("api-key:a".to_owned()));
    }

    #[test]
    fn what_is_not_the_key_is_refused() {
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
    async fn principal_of_a_key_ends_with_it() {
        let soon = Timestamp::from_millisecond(EXPIRES * 1_000 - 20).unwrap();
        let clock = Clock::new(move || soon, uuid::Uuid::nil);
        let (sender, receiver) = watch::channel(Some(Arc::new(keys())));
        let ring = KeyRing::new(receiver);
        let principal =
            |id: &str| Principal { actor: format!("{ACTOR_PREFIX}{id}"), ..Principal::anonymous() };
        let (lasting, expiring) = (principal("a"), principal("b"));
        let mut ended = std::pin::pin!(ring.ended(&lasting, &clock));
        tokio::select! {
            () = &mut ended => panic!("its key is good"),
            () = ring.ended(&expiring, &clock) => {}
        }
        sender.send_replace(Some(Arc::new(ApiKeys::new("dev", []))));
        ended.await;
    }

    #[test]
    fn key_is_refused_from_its_expiry_on() {
        let token = Secret::of([2; 32]).token("dev", "b");
        assert!(actor(&token, EXPIRES - 1).is_some());
        assert!(actor(&token, EXPIRES).is_none());
    }
}
