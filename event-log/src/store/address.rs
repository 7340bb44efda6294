//! The event store's address, as the client parses it and without its credentials.

use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;

use eventstore::{ClientSettings, Credentials, NodePreference};
use serde::Deserialize;
use service_kit::address::is_loopback;

use super::error::LogError;

/// Prefixes of an address.
const SCHEMES: [&str; 2] = ["esdb://", "esdb+discover://"];
/// Default user and password of EventStoreDB.
const DEFAULT_CREDENTIALS: (&str, &str) = ("admin", "changeit");

/// Address of the event store: `esdb://host:2113?tls=false`, or `esdb+discover://` for a cluster;
/// empty if none is configured. It may hold a password, so `Display` and `Debug` omit credentials.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct EventStoreUrl(Option<Parsed>);

#[derive(Clone, PartialEq, Eq)]
struct Parsed {
    text: String,
    settings: ClientSettings,
}

impl EventStoreUrl {
    /// Returns whether no event store is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns whether traffic can be read on its way: the connection has no TLS, and a host is not
    /// this machine.
    pub fn sends_in_the_clear(&self) -> bool {
        self.settings()
            .is_some_and(|settings| !settings.is_secure_mode_enabled() && !is_local(settings))
    }

    /// Returns whether any server could impersonate the event store: certificates are not checked,
    /// and a host is not this machine.
    pub fn trusts_any_certificate(&self) -> bool {
        self.settings().is_some_and(|settings| {
            settings.is_secure_mode_enabled()
                && !settings.is_tls_certificate_verification_enabled()
                && !is_local(settings)
        })
    }

    /// Returns whether every host is this machine.
    pub fn is_local(&self) -> bool {
        self.settings().is_none_or(is_local)
    }

    /// Returns whether the connection uses TLS.
    pub fn has_tls(&self) -> bool {
        self.settings().is_some_and(ClientSettings::is_secure_mode_enabled)
    }

    /// Returns whether the address names a cluster, and may select another node than its leader.
    pub fn may_select_follower(&self) -> bool {
        self.settings().is_some_and(|settings| {
            let is_cluster = settings.is_dns_discovery_enabled() || settings.hosts().len() > 1;
            is_cluster && settings.node_preference() != NodePreference::Leader
        })
    }

    /// Returns whether user and password are EventStoreDB's defaults.
    pub fn has_default_password(&self) -> bool {
        let (user, password) = DEFAULT_CREDENTIALS;
        let default = Credentials::new(user.to_owned(), password.to_owned());
        let user = self.settings().map(ClientSettings::default_authenticated_user);
        user == Some(&Some(default))
    }

    /// Returns the client's settings with these parameters, except those that the address sets; and
    /// whether the last one was added.
    pub(crate) fn settings_with(
        &self,
        parameters: &[(&str, &str)],
    ) -> Result<(ClientSettings, bool), LogError> {
        let invalid = || LogError::Address { url: self.to_string() };
        let mut url = self.0.as_ref().ok_or_else(invalid)?.text.clone();
        let mut is_added = false;
        for (name, value) in parameters {
            let with = with_parameter(&url, name, value);
            is_added = with != url;
            url = with;
        }
        Ok((url.parse().map_err(|_| invalid())?, is_added))
    }

    pub(super) fn settings(&self) -> Option<&ClientSettings> {
        self.0.as_ref().map(|url| &url.settings)
    }
}

/// Returns whether every host is this machine.
fn is_local(settings: &ClientSettings) -> bool {
    settings.hosts().iter().all(|host| is_loopback(&host.host))
}

impl FromStr for EventStoreUrl {
    type Err = LogError;

    /// # Errors
    /// [`LogError::Address`] if the address is invalid.
    fn from_str(text: &str) -> Result<Self, LogError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(settings) => Ok(Self(Some(Parsed { text: text.to_owned(), settings }))),
            // The client's reason quotes the whole address, password included.
            Err(_) => Err(LogError::Address { url: without_credentials(text) }),
        }
    }
}

impl TryFrom<String> for EventStoreUrl {
    type Error = LogError;

    fn try_from(text: String) -> Result<Self, LogError> {
        text.parse()
    }
}

/// Writes the address without user and password.
impl Display for EventStoreUrl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown = self.0.as_ref().map(|url| without_credentials(&url.text));
        f.write_str(&shown.unwrap_or_default())
    }
}

/// Writes the address without user and password.
impl Debug for EventStoreUrl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "EventStoreUrl({self})")
    }
}

/// Removes user and password, also from an invalid address.
fn without_credentials(url: &str) -> String {
    // The last one: a password may contain an `@`.
    let Some((_, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = SCHEMES.into_iter().find(|scheme| url.starts_with(scheme)).unwrap_or_default();
    format!("{scheme}{host}")
}

/// Adds a parameter for the client, unless the address sets it. Names are case-insensitive.
fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let mut names = parameters.split('&').filter_map(|parameter| parameter.split('=').next());
    if names.any(|given| given.eq_ignore_ascii_case(name)) {
        return url.to_owned();
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{name}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> EventStoreUrl {
        text.parse().unwrap()
    }

    #[test]
    fn address_is_shown_without_credentials() {
        let shown = without_credentials("esdb://admin:p@ss@host:2113?tls=false");
        assert_eq!(shown, "esdb://host:2113?tls=false");
        assert_eq!(without_credentials("esdb://host:2113"), "esdb://host:2113");
        assert_eq!(without_credentials("admin:p@ss@host"), "host");
        assert_eq!(without_credentials("admin:p@ss://@host"), "host");
        let url = parsed("esdb://admin:s3cret@host:2113");
        assert_eq!(format!("{url} {url:?}"), "esdb://host:2113 EventStoreUrl(esdb://host:2113)");
    }

    #[test]
    fn invalid_address_is_refused_without_its_password() {
        for url in ["esdb://admin:s3cret@[bad", "admin:s3cret@h", "esdb://admin:s3:cret@x:y:z"] {
            let refused = url.parse::<EventStoreUrl>().err().unwrap();
            let shown = format!("{refused} {refused:?}");
            assert!(shown.contains("esdb://HOST:2113") && !shown.contains("s3"), "{shown}");
        }
    }

    #[test]
    fn parameter_is_added_unless_the_address_sets_it() {
        let with = |url| with_parameter(url, "discoveryInterval", "10");
        assert_eq!(with("esdb://host"), "esdb://host?discoveryInterval=10");
        let both = "esdb://host?tls=false&discoveryInterval=10";
        assert_eq!(with("esdb://host?tls=false"), both);
        let named = "esdb://host?discoveryinterval=700&tls=false";
        assert_eq!(with(named), named);
        let other = "esdb://discoveryInterval=9:x@host?aDiscoveryInterval=1";
        assert_eq!(with(other), format!("{other}&discoveryInterval=10"));
    }

    #[test]
    fn connection_without_tls_to_another_host_is_unsafe() {
        for clear in [
            "esdb://store:2113?tls=false",
            "esdb://store:2113?TLS=false",
            "esdb://127.0.0.1.example:2113?tls=false",
            "esdb://localhost.example:2113?tls=false",
            "esdb://127.0.0.1:2113,store:2113?tls=false",
            "esdb://127.0.0.1:x@store:2113?tls=false",
            "esdb+discover://store:2113?tls=false",
        ] {
            assert!(parsed(clear).sends_in_the_clear(), "{clear}");
        }
        for safe in [
            "",
            "esdb://store:2113",
            "esdb://tls=false:x@store:2113",
            "esdb://store:2113?connectionName=tls=false",
            "esdb://127.0.0.1:2113?tls=false",
            "esdb://admin:x@localhost:2113?tls=false",
            "esdb://[::1]:2113?tls=false",
        ] {
            assert!(!parsed(safe).sends_in_the_clear(), "{safe}");
        }
        assert!(parsed("esdb://store:2113?tlsVerifyCert=false").trusts_any_certificate());
        for checked in ["esdb://store:2113", "esdb://localhost:2113?tlsVerifyCert=false"] {
            assert!(!parsed(checked).trusts_any_certificate(), "{checked}");
        }
    }

    #[test]
    fn default_password_is_recognised_in_every_notation() {
        for default in ["esdb://admin:changeit@a:1,b:2", "esdb+discover://admin:changeit@store"] {
            assert!(parsed(default).has_default_password(), "{default}");
        }
        for other in ["", "esdb://a:1", "esdb://admin:other@a", "esdb://a/?x=admin:changeit@"] {
            let is_default =
                other.parse().is_ok_and(|url: EventStoreUrl| url.has_default_password());
            assert!(!is_default, "{other}");
        }
    }
}
