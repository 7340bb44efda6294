//! Settings of the console.

use std::num::NonZeroU32;

use serde::Deserialize;

/// `[console]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Whether the API process serves the console.
    pub enabled: bool,
    /// Time after which a visitor must sign in again.
    pub session_minutes: NonZeroU32,
    /// Secret that seals the cookies; empty: a random one for each process.
    pub session_secret: String,
}

/// Minimum length of `console.session_secret` in bytes. 32 random hexadecimal digits have 128 bits of
/// entropy.
const MIN_SECRET_BYTES: usize = 32;

/// Why the settings are invalid.
#[derive(Debug, thiserror::Error)]
#[error(
    "`console.session_secret` is shorter than {MIN_SECRET_BYTES} characters: set a random one, for \
     example of `openssl rand -hex 32`"
)]
pub struct ShortSecret;

impl ConsoleConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// If the secret is too short to seal cookies.
    pub fn check(&self) -> Result<(), ShortSecret> {
        let is_short = (1..MIN_SECRET_BYTES).contains(&self.session_secret.len());
        if is_short { Err(ShortSecret) } else { Ok(()) }
    }
}
