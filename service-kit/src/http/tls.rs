//! TLS: the certificate, and its successors while the process runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::sleep;

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
    #[error("file `{path}` is not what it should be (PEM)")]
    Pem {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
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
#[derive(PartialEq, Eq)]
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
        Ok(Some(Self { files, served, loaded }))
    }

    pub(super) fn served(&self) -> RustlsConfig {
        self.served.clone()
    }
}

/// Serves the successors of a certificate as they replace it; never ends. One that cannot be used
/// is reported, and the one before it stays.
pub(super) async fn keep_current(certificate: Option<&Certificate>) {
    let Some(Certificate { files, served, loaded }) = certificate else {
        return std::future::pending().await;
    };
    let mut seen = None;
    loop {
        sleep(LOOK_INTERVAL).await;
        let Ok(found) = files.read().inspect_err(report) else { continue };
        if seen.as_ref().unwrap_or(loaded) == &found {
            continue;
        }
        match files.usable(&found) {
            Ok(config) => {
                served.reload_from_config(Arc::new(config));
                tracing::info!("Certificate replaced");
            }
            Err(error) => report(&error),
        }
        seen = Some(found);
    }
}

fn report(error: &TlsError) {
    tracing::warn!(error = %Chain(error), "Certificate cannot be replaced: the one before it stays");
}

impl Files {
    fn read(&self) -> Result<Pems, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
        };
        Ok(Pems { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    fn usable(&self, pems: &Pems) -> Result<ServerConfig, TlsError> {
        let pem = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Pem { path, source }
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pems.certificate)
            .collect::<Result<_, _>>()
            .map_err(pem(&self.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&pems.key).map_err(pem(&self.key))?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|it| it.with_no_client_auth().with_single_cert(chain, key))
                .map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}
