//! Salted hashes of passwords: PBKDF2 with HMAC-SHA-512, as `pbkdf2-sha512$iterations$salt$hash`.

use std::num::NonZeroU32;

use aws_lc_rs::{error::Unspecified, pbkdf2, rand};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

const ALGORITHM: &str = "pbkdf2-sha512";

/// Number of iterations of new hashes: the recommendation of OWASP for this algorithm.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(210_000).unwrap();

/// Maximum number of iterations of a stored hash. A larger number would block logins.
const MAX_ITERATIONS: u32 = 10_000_000;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 64;

/// Salted hash of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct PasswordHash {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// A text that is not a hash of the supported form.
#[derive(Debug, thiserror::Error)]
#[error("not a password hash of the form `{ALGORITHM}$iterations$salt$hash`")]
pub(super) struct PasswordHashError;

impl PasswordHash {
    /// Hashes a password with a new salt. Takes about 0.1 s. Fails if the system has no randomness.
    pub(super) fn create(password: &str) -> Result<Self, Unspecified> {
        let mut salt = vec![0; SALT_BYTES];
        rand::fill(&mut salt)?;
        let mut hash = vec![0; HASH_BYTES];
        let secret = password.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, &salt, secret, &mut hash);
        Ok(Self { iterations: ITERATIONS, salt, hash })
    }

    /// Returns a hash that no password has. Its verification takes as long as that of a real hash.
    pub(super) fn unmatchable() -> Self {
        Self { iterations: ITERATIONS, salt: vec![0; SALT_BYTES], hash: vec![0; HASH_BYTES] }
    }

    /// Returns whether the hash is that of `password`. The comparison takes constant time.
    pub(super) fn is_hash_of(&self, password: &str) -> bool {
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
        pbkdf2::verify(algorithm, self.iterations, &self.salt, password.as_bytes(), &self.hash)
            .is_ok()
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = PasswordHashError;

    fn try_from(text: String) -> Result<Self, PasswordHashError> {
        let parse = || {
            let rest = text.strip_prefix(ALGORITHM)?.strip_prefix('$')?;
            let (iterations, rest) = rest.split_once('$')?;
            let (salt, hash) = rest.split_once('$')?;
            let iterations: NonZeroU32 = iterations.parse().ok()?;
            let (salt, hash) = (STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?);
            let is_complete = salt.len() >= SALT_BYTES && hash.len() == HASH_BYTES;
            (is_complete && iterations.get() <= MAX_ITERATIONS).then_some(Self {
                iterations,
                salt,
                hash,
            })
        };
        parse().ok_or(PasswordHashError)
    }
}

impl From<PasswordHash> for String {
    fn from(PasswordHash { iterations, salt, hash }: PasswordHash) -> Self {
        let (salt, hash) = (STANDARD.encode(salt), STANDARD.encode(hash));
        format!("{ALGORITHM}${iterations}${salt}${hash}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_hash_matches_its_password_only() {
        let stored = String::from(PasswordHash::create("correct horse").unwrap());
        let hash = PasswordHash::try_from(stored.clone()).unwrap();
        assert!(hash.is_hash_of("correct horse"));
        assert!(!hash.is_hash_of("correct horse "));
        assert!(!PasswordHash::unmatchable().is_hash_of(""));
        let again = String::from(PasswordHash::create("correct horse").unwrap());
        assert_ne!(stored, again, "each hash has its own salt");
    }

    #[test]
    fn malformed_hashes_are_refused() {
        let (salt, hash) = ("AAAAAAAAAAAAAAAAAAAAAA==", STANDARD.encode([1; HASH_BYTES]));
        let is_valid = |text: String| PasswordHash::try_from(text).is_ok();
        assert!(is_valid(format!("pbkdf2-sha512$1000${salt}${hash}")));
        for text in [
            format!("pbkdf2-sha256$1000${salt}${hash}"),
            format!("pbkdf2-sha512$0${salt}${hash}"),
            format!("pbkdf2-sha512$10000001${salt}${hash}"),
            format!("pbkdf2-sha512$1000$AAAA${hash}"),
            format!("pbkdf2-sha512$1000${salt}$AAAA"),
            format!("pbkdf2-sha512$1000${salt}"),
            "correct horse".to_owned(),
        ] {
            assert!(!is_valid(text.clone()), "{text}");
        }
    }
}
