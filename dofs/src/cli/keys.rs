//! Arguments of `dofs keys`.

use clap::Subcommand;
use service_kit::auth::Scope;

/// These commands access the configured event store directly, without the API.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Create a key and print it; its secret is never shown again. API processes accept it within
    /// two seconds
    Create {
        /// Purpose of the key, shown by `dofs keys list`
        #[arg(long, value_name = "TEXT", value_parser = parse_key_name)]
        name: String,
        /// Tenant whose orders the key can place and read
        #[arg(long, value_parser = parse_tenant, required_unless_present = "all_tenants")]
        tenant: Option<String>,
        /// Give access to the orders of all tenants: for operators
        #[arg(long, conflicts_with = "tenant")]
        all_tenants: bool,
        /// Scope to grant: orders:write, orders:read, audit:read, ops:read or ops:write; may be
        /// repeated
        #[arg(long = "scope", required = true, value_delimiter = ',', value_parser = parse_scope)]
        scopes: Vec<Scope>,
        /// Number of days after which the key expires
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expires_in: Option<u32>,
    },
    /// List all keys, without their secrets
    List,
    /// Revoke a key; API processes reject it within two seconds
    Revoke {
        /// Id of the key
        id: String,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    let names = Scope::ALL.map(Scope::as_str).join(", ");
    Scope::from_name(text).ok_or_else(|| format!("use one of {names}"))
}

fn parse_key_name(text: &str) -> Result<String, String> {
    let is_valid = (1..=100).contains(&text.chars().count())
        && !text.trim().is_empty()
        && !text.contains(char::is_control);
    let rejection = || "use 1 to 100 printable characters".to_owned();
    is_valid.then(|| text.to_owned()).ok_or_else(rejection)
}

fn parse_tenant(text: &str) -> Result<String, String> {
    let is_valid = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let rejection = || "use 1 to 64 letters, digits, dashes, underscores and dots".to_owned();
    is_valid.then(|| text.to_owned()).ok_or_else(rejection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_name_has_1_to_100_printable_characters() {
        let longest = "\u{e9}".repeat(100);
        for valid in ["x", "Shop, checkout (caf\u{e9})", &longest] {
            assert_eq!(parse_key_name(valid), Ok(valid.to_owned()));
        }
        for invalid in ["", " ", "a\nb", "\u{1b}[31m", &format!("{longest}x")] {
            assert!(parse_key_name(invalid).is_err(), "{invalid}");
        }
    }
}
