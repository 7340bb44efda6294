//! TLS: the certificate, and its successors while the process runs.

mod pem;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use tokio::time::sleep;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::{Validity, X509Error};

use super::ApiConfig;
use crate::error::Chain;

/// Between two looks at the files: a certificate that is replaced is served this soon.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("file `{path}` cannot be read")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("file `{path}` is not {expected}: {found}")]
    NotPem { path: PathBuf, expected: &'static str, found: String },
    #[error("certificate in `{path}` cannot be read")]
    Damaged {
        path: PathBuf,
        #[source]
        source: x509_parser::nom::Err<X509Error>,
    },
    #[error("certificate in `{path}` is valid from {from} to {to} only")]
    NotValidNow { path: PathBuf, from: String, to: String },
    #[error("certificate and key cannot be used")]
    Pair(#[source] rustls::Error),
}

/// The certificate in use.
pub(super) struct Certificate {
    files: Files,
    served: RustlsConfig,
    loaded: Pems,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The two files as they were read.
#[derive(Clone, PartialEq, Eq)]
struct Pems {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// The certificate that the settings name, if they name one.
    pub(super) fn of(config: &ApiConfig) -> Result<Option<Self>, TlsError> {
        if !config.has_tls() {
            return Ok(None);
        }
        let files = Files {
            certificate: PathBuf::from(&config.tls_certificate),
            key: PathBuf::from(&config.tls_key),
        };
        let loaded = files.read()?;
        let served = RustlsConfig::from_config(Arc::new(files.usable(&loaded)?));
        // It is served all the same: without it, nothing would be.
        if let Err(error) = files.check_valid_now(&loaded) {
            tracing::warn!(error = %Chain(&error), "Certificate is not valid: clients will refuse it");
        }
        Ok(Some(Self { files, served, loaded }))
    }

    pub(super) fn served(&self) -> RustlsConfig {
        self.served.clone()
    }
}

/// Serves the successors of a certificate as they replace it; never ends. One that cannot be used
/// is reported, and the one before it stays; so is one that is not valid now, as long as the one
/// before it is.
pub(super) async fn keep_current(certificate: Option<&Certificate>) {
    let Some(Certificate { files, served, loaded }) = certificate else {
        return std::future::pending().await;
    };
    let mut in_use = loaded.clone();
    let mut reported = None;
    loop {
        sleep(LOOK_INTERVAL).await;
        match files.find_successor(&in_use) {
            Ok(None) => reported = None,
            Ok(Some((found, config))) => {
                served.reload_from_config(Arc::new(config));
                tracing::info!("Certificate replaced");
                in_use = found;
                reported = None;
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                if reported.as_ref() != Some(&error) {
                    tracing::warn!(
                        error,
                        "Certificate cannot be replaced: the one before it stays"
                    );
                    reported = Some(error);
                }
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<Pems, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
        };
        Ok(Pems { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// Returns what has replaced the certificate in use, and how it is served.
    fn find_successor(&self, in_use: &Pems) -> Result<Option<(Pems, ServerConfig)>, TlsError> {
        let found = self.read()?;
        if &found == in_use {
            return Ok(None);
        }
        let config = self.usable(&found)?;
        match self.check_valid_now(&found) {
            // A renewal that went wrong must not become an outage.
            Err(error) if self.check_valid_now(in_use).is_ok() => Err(error),
            Ok(()) | Err(_) => Ok(Some((found, config))),
        }
    }

    /// Refuses a certificate that clients refuse by their clocks.
    fn check_valid_now(&self, pems: &Pems) -> Result<(), TlsError> {
        let chain = pem::certificates(&self.certificate, &pems.certificate)?;
        let path = || self.certificate.clone();
        for certificate in chain {
            let damaged = |source| TlsError::Damaged { path: path(), source };
            let (_, parsed) = parse_x509_certificate(&certificate).map_err(damaged)?;
            let Validity { not_before, not_after } = parsed.validity();
            if !parsed.validity().is_valid() {
                let (from, to) = (not_before.to_string(), not_after.to_string());
                return Err(TlsError::NotValidNow { path: path(), from, to });
            }
        }
        Ok(())
    }

    fn usable(&self, pems: &Pems) -> Result<ServerConfig, TlsError> {
        let chain: Vec<CertificateDer<'_>> =
            pem::certificates(&self.certificate, &pems.certificate)?;
        let key = pem::private_key(&self.key, &pems.key)?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|it| it.with_no_client_auth().with_single_cert(chain, key))
                .map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// Writes a new certificate that is valid in these years.
    fn write_certificate(files: &Files, from: i32, to: i32) -> Pems {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(from, 1, 1);
        parameters.not_after = date_time_ymd(to, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files.read().unwrap()
    }

    #[test]
    fn certificate_that_is_not_valid_now_never_replaces_a_valid_one() {
        let folder = tempfile::tempdir().unwrap();
        let in_folder = |name: &str| folder.path().join(name);
        let files = Files { certificate: in_folder("chain.pem"), key: in_folder("key.pem") };
        let valid = write_certificate(&files, 2000, 4000);
        assert!(files.find_successor(&valid).unwrap().is_none(), "it is in use");
        for (from, to) in [(2000, 2001), (3999, 4000)] {
            let invalid = write_certificate(&files, from, to);
            let refused = files.find_successor(&valid).err().unwrap().to_string();
            assert!(refused.contains(&from.to_string()), "{refused}");
            let other = write_certificate(&files, from, to);
            let replaced = files.find_successor(&invalid).unwrap();
            assert!(replaced.is_some_and(|(found, _)| found == other), "neither is valid");
        }
        let renewed = write_certificate(&files, 2000, 4000);
        let replaced = files.find_successor(&valid).unwrap();
        assert!(replaced.is_some_and(|(found, _)| found == renewed));
    }
}
