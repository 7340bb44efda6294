//! Settings of the node.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use service_kit::address::HostPort;
use service_kit::tls::TlsFiles;

/// Protocols that the node offers in TLS handshakes: HTTP/2 for calls, HTTP/1.1 for liveness probes.
const TLS_PROTOCOLS: &[&str] = &["h2", "http/1.1"];

/// Settings of the embedded event store (`[node]` in the configuration).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Address and port to listen on, as in `127.0.0.1:2113`; port 0 takes a free one.
    pub listen: HostPort,
    /// Folder of the store; created if it is missing.
    pub data: PathBuf,
    /// Whether to create an empty store in a folder that holds files of a store but no
    /// `events.log`. The files are removed.
    #[serde(default)]
    pub allow_empty: bool,
    /// Maximum number of MiB of the log that a scavenge reads per second, so that orders keep the
    /// disk.
    #[serde(default = "default_scavenge_mib_per_second")]
    pub scavenge_mib_per_second: u32,
    /// `host:port` at which clients reach this node, for clients that discover it by gossip.
    /// Without it, gossip names the address that the client has called.
    #[serde(default)]
    pub advertise: Option<HostPort>,
    /// Name of the user of all connections, if the node has no users. The default is the name that
    /// EventStoreDB uses without security.
    #[serde(default = "default_user_name")]
    pub user_name: String,
    /// File with the certificate chain (PEM); empty: no TLS.
    #[serde(default)]
    pub tls_certificate: String,
    /// File with the certificate's private key (PEM).
    #[serde(default)]
    pub tls_key: String,
    /// File with certificate authorities (PEM). If set, each client must present a certificate of
    /// one of them.
    #[serde(default)]
    pub tls_client_ca: String,
    /// File with the users, which `dofs node users` maintains; empty: no users, and every caller has
    /// all rights.
    #[serde(default)]
    pub users: String,
}

/// Settings of the node that are invalid together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeConfigError {
    #[error("only one of the settings `node.tls_certificate` and `node.tls_key` is set: set both")]
    HalfTls,
    #[error(
        "setting `node.tls_client_ca` needs TLS: set `node.tls_certificate` and `node.tls_key`"
    )]
    ClientCaWithoutTls,
}

impl NodeConfig {
    /// Returns the default settings for a store in `data`.
    pub fn new(listen: HostPort, data: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            data: data.into(),
            allow_empty: false,
            scavenge_mib_per_second: default_scavenge_mib_per_second(),
            advertise: None,
            user_name: default_user_name(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            tls_client_ca: String::new(),
            users: String::new(),
        }
    }

    /// Refuses settings that are invalid together.
    pub fn check(&self) -> Result<(), NodeConfigError> {
        if self.tls_certificate.is_empty() != self.tls_key.is_empty() {
            return Err(NodeConfigError::HalfTls);
        }
        if self.has_client_ca() && !self.has_tls() {
            return Err(NodeConfigError::ClientCaWithoutTls);
        }
        Ok(())
    }

    pub fn has_tls(&self) -> bool {
        !self.tls_certificate.is_empty()
    }

    /// Returns whether clients must present a certificate.
    pub fn has_client_ca(&self) -> bool {
        !self.tls_client_ca.is_empty()
    }

    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Returns the files of the certificate; `None` without TLS.
    pub(crate) fn tls_files(&self) -> Option<TlsFiles> {
        self.has_tls().then(|| TlsFiles {
            certificate: PathBuf::from(&self.tls_certificate),
            key: PathBuf::from(&self.tls_key),
            client_ca: self.has_client_ca().then(|| PathBuf::from(&self.tls_client_ca)),
            protocols: TLS_PROTOCOLS,
        })
    }

    /// Returns the users file; `None` without users.
    pub(crate) fn users_file(&self) -> Option<&Path> {
        self.has_users().then(|| Path::new(&self.users))
    }
}

fn default_scavenge_mib_per_second() -> u32 {
    32
}

fn default_user_name() -> String {
    "system".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_config(json: &str) -> NodeConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn default_user_name_is_system() {
        let config = parse_config(r#"{"listen": "127.0.0.1:0", "data": "store"}"#);
        assert_eq!(config.user_name, "system");
        assert!(!config.has_tls() && !config.has_users());
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn incomplete_tls_settings_are_refused() {
        let checked = |settings: &str| {
            let json = format!(r#"{{"listen": "127.0.0.1:0", "data": "store", {settings}}}"#);
            parse_config(&json).check()
        };
        assert_eq!(checked(r#""tls_certificate": "a.pem""#), Err(NodeConfigError::HalfTls));
        assert_eq!(checked(r#""tls_key": "a.pem""#), Err(NodeConfigError::HalfTls));
        let client_ca = checked(r#""tls_client_ca": "a.pem""#);
        assert_eq!(client_ca, Err(NodeConfigError::ClientCaWithoutTls));
    }
}
