//! Basic authentication of calls, with a cache of verified credentials: clients send their
//! credentials with each call, and verifying them is slow on purpose.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::{error::Unspecified, hmac, rand::SystemRandom};
use axum::http::HeaderValue;
use base64::{Engine, engine::general_purpose::STANDARD};
use hashlink::LruCache;
use service_kit::{error::Chain, mutex::lock};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::access::{
    caller::{Caller, User},
    failed_attempts::{FailedAttempts, MAX_FAILURES, WINDOW},
    password::PasswordHash,
    users_file::{UserTable, UsersFileError, read_users},
};

/// Interval between two reads of the users file, and so the delay until a change takes effect.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Number of cached credentials of each kind: verified, and rejected.
const CACHED_CREDENTIALS: usize = 1_000;

/// Number of credentials that are verified at the same time. Each occupies a core.
const MAX_VERIFICATIONS: usize = 2;

/// Maximum size of the header. Longer ones would only cost memory.
const MAX_HEADER_BYTES: usize = 2_048;

/// Why a call is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthenticationError {
    /// The user does not exist, or the password is wrong.
    Rejected,
    /// Too many attempts from the address of the client have failed.
    TooManyFailures,
}

/// Credentials under a secret key. The cache does not hold passwords or plain hashes of them.
type CredentialKey = Vec<u8>;

pub(crate) struct Authenticator {
    path: PathBuf,
    key: hmac::Key,
    state: Mutex<State>,
    verifications: Semaphore,
}

struct State {
    /// Contents of the users file.
    text: Vec<u8>,
    users: Arc<UserTable>,
    verified: LruCache<CredentialKey, Arc<User>>,
    rejected: LruCache<CredentialKey, ()>,
    failed_attempts: FailedAttempts,
}

impl Authenticator {
    /// Reads the users file.
    pub(crate) fn load(path: &Path) -> Result<Self, UsersFileError> {
        let text = read_users(path)?;
        let users = Arc::new(UserTable::parse(path, &text)?);
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|Unspecified| UsersFileError::Randomness)?;
        let state = State {
            text,
            users,
            verified: LruCache::new(CACHED_CREDENTIALS),
            rejected: LruCache::new(CACHED_CREDENTIALS),
            failed_attempts: FailedAttempts::default(),
        };
        let verifications = Semaphore::new(MAX_VERIFICATIONS);
        Ok(Self { path: path.to_owned(), key, state: Mutex::new(state), verifications })
    }

    /// Returns the caller of a call with this `authorization` header from `address`. As in
    /// EventStoreDB, a call without a readable header is anonymous.
    pub(crate) async fn authenticate(
        &self,
        header: Option<&HeaderValue>,
        address: IpAddr,
    ) -> Result<Caller, AuthenticationError> {
        let Some(Credentials { name, password }) = header.and_then(Credentials::parse) else {
            return Ok(Caller::Anonymous);
        };
        let credentials = format!("{name}:{password}");
        let key = hmac::sign(&self.key, credentials.as_bytes()).as_ref().to_vec();
        if let Some(known) = lock(&self.state).find_known(&key, address) {
            return known;
        }
        // Fails if the semaphore is closed, which does not happen.
        let _turn = self.verifications.acquire().await;
        // Another call with the same credentials may have verified them meanwhile. Without this,
        // each call of a client that starts with many would be hashed.
        let users = {
            let mut state = lock(&self.state);
            if let Some(known) = state.find_known(&key, address) {
                return known;
            }
            Arc::clone(&state.users)
        };
        let found = users.find_user(&name);
        // An unknown user takes as long as a wrong password, so that clients cannot find out names.
        let (user, hash) = found
            .map_or_else(|| (None, PasswordHash::unmatchable()), |(user, hash)| (Some(user), hash));
        let verified = tokio::task::spawn_blocking(move || hash.is_hash_of(&password)).await;
        let user = user.filter(|_| matches!(verified, Ok(true)));
        let mut state = lock(&self.state);
        // The file was replaced meanwhile: the result may not hold any more.
        let is_current = Arc::ptr_eq(&state.users, &users);
        if let Some(user) = user {
            if is_current {
                state.verified.insert(key, Arc::clone(&user));
            }
            return Ok(Caller::User(user));
        }
        if is_current {
            state.rejected.insert(key, ());
        }
        if state.failed_attempts.count_failure(address, Instant::now()) {
            tracing::warn!(
                %address, failures = MAX_FAILURES, refused_for_seconds = WINDOW.as_secs(),
                "Authentication failed too often: further attempts from this address are refused"
            );
        }
        tracing::info!(user = name, %address, "Authentication failed");
        Err(AuthenticationError::Rejected)
    }

    /// Watches the users file and uses each new content; never returns. A file that cannot be used
    /// is logged and ignored.
    pub(crate) async fn reload_on_change(&self) {
        let mut last_error = None;
        loop {
            sleep(RELOAD_INTERVAL).await;
            match self.reload() {
                Ok(is_replaced) => {
                    if is_replaced {
                        tracing::info!(file = %self.path.display(), "Users replaced");
                    }
                    last_error = None;
                }
                Err(error) => {
                    let error = Chain(&error).to_string();
                    if last_error.as_ref() != Some(&error) {
                        tracing::warn!(
                            error,
                            "Users cannot be replaced: the current ones stay in use"
                        );
                        last_error = Some(error);
                    }
                }
            }
        }
    }

    /// Reads the file again. Returns whether it has changed.
    fn reload(&self) -> Result<bool, UsersFileError> {
        let text = read_users(&self.path)?;
        if lock(&self.state).text == text {
            return Ok(false);
        }
        let users = Arc::new(UserTable::parse(&self.path, &text)?);
        let mut state = lock(&self.state);
        state.text = text;
        state.users = users;
        // Users may have been removed, or have another password.
        state.verified.clear();
        state.rejected.clear();
        Ok(true)
    }
}

impl State {
    /// Returns the result for credentials that need no verification.
    fn find_known(
        &mut self,
        key: &CredentialKey,
        address: IpAddr,
    ) -> Option<Result<Caller, AuthenticationError>> {
        if let Some(user) = self.verified.get(key) {
            return Some(Ok(Caller::User(Arc::clone(user))));
        }
        if self.rejected.get(key).is_some() {
            return Some(Err(AuthenticationError::Rejected));
        }
        let is_refused = self.failed_attempts.is_refused(address, Instant::now());
        is_refused.then_some(Err(AuthenticationError::TooManyFailures))
    }
}

/// Name and password of a call.
#[derive(Debug, PartialEq, Eq)]
struct Credentials {
    name: String,
    password: String,
}

impl Credentials {
    fn parse(header: &HeaderValue) -> Option<Self> {
        let text = header.to_str().ok().filter(|text| text.len() <= MAX_HEADER_BYTES)?;
        let (scheme, encoded) = text.split_once(' ')?;
        let decoded =
            scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()))?;
        let decoded = String::from_utf8(decoded.ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::users_file::UsersFile;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const PASSWORD: &str = "a long password";

    fn basic(text: &str) -> HeaderValue {
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text))).unwrap()
    }

    fn write_users(path: &Path, names: &[&str]) {
        let mut file = UsersFile::open_or_new(path).unwrap();
        for user in file.list_users() {
            file.remove_user(&user.name).unwrap();
        }
        for name in names {
            file.add_user(name, Vec::new(), PASSWORD).unwrap();
        }
        file.save().unwrap();
    }

    #[test]
    fn only_basic_credentials_are_read() {
        let parsed = |text: &str| {
            let header = HeaderValue::try_from(text.to_owned()).unwrap();
            Credentials::parse(&header).map(|found| (found.name, found.password))
        };
        let owned = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(parsed("Basic YTpiOmM="), owned("a", "b:c"));
        assert_eq!(parsed("basic Og=="), owned("", ""));
        for text in ["", "Basic", "Basic YQ==", "Basic %%", "Bearer YTpi", "Digest x", "YTpi"] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(parsed(&format!("Basic {}", "YTpi".repeat(600))), None);
    }

    #[tokio::test]
    async fn replaced_file_decides_about_cached_credentials() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.json");
        write_users(&path, &["ada"]);
        let authenticator = Authenticator::load(&path).unwrap();
        let (ada, bob) = (basic(&format!("ada:{PASSWORD}")), basic(&format!("bob:{PASSWORD}")));
        let is_accepted =
            async |header| authenticator.authenticate(Some(header), ADDRESS).await.is_ok();
        assert!(is_accepted(&ada).await && !is_accepted(&bob).await);
        assert!(!authenticator.reload().unwrap(), "unchanged");
        write_users(&path, &["bob"]);
        assert!(is_accepted(&ada).await && !is_accepted(&bob).await, "not read yet");
        assert!(authenticator.reload().unwrap());
        assert!(!is_accepted(&ada).await && is_accepted(&bob).await);
        std::fs::write(&path, "no users").unwrap();
        assert!(matches!(authenticator.reload(), Err(UsersFileError::Invalid { .. })));
        assert!(is_accepted(&bob).await, "an invalid file is ignored");
    }

    #[tokio::test]
    async fn many_failures_of_an_address_refuse_unknown_credentials_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.json");
        write_users(&path, &["ada", "bob"]);
        let authenticator = Authenticator::load(&path).unwrap();
        let attempt = async |text: String, address| {
            let caller = authenticator.authenticate(Some(&basic(&text)), address).await;
            caller.map(|caller| caller.name("").to_owned())
        };
        let ada = || format!("ada:{PASSWORD}");
        assert_eq!(attempt(ada(), ADDRESS).await, Ok("ada".to_owned()));
        for n_failed in 0..MAX_FAILURES {
            let failed = attempt(format!("ada:wrong {n_failed}"), ADDRESS).await;
            assert_eq!(failed, Err(AuthenticationError::Rejected));
        }
        let bob = || format!("bob:{PASSWORD}");
        assert_eq!(attempt(bob(), ADDRESS).await, Err(AuthenticationError::TooManyFailures));
        let repeated = attempt("ada:wrong 0".to_owned(), ADDRESS).await;
        assert_eq!(repeated, Err(AuthenticationError::Rejected), "costs nothing");
        assert_eq!(attempt(ada(), ADDRESS).await, Ok("ada".to_owned()), "verified before");
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(attempt(bob(), elsewhere).await, Ok("bob".to_owned()));
    }
}
