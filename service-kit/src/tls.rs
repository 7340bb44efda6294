//! TLS of servers: certificate, key, accepted client certificates, and their replacement while the
//! process runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::time::sleep;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::{Validity, X509Error};

use crate::certificate::find_expiry;
use crate::error::Chain;
use crate::metrics::set_certificate_expiry;

/// Makes aws-lc the default cryptography of the process. Two providers are linked, and libraries that
/// look for a default one panic if they find two and none is chosen.
pub fn install_default_provider() {
    // Fails if a provider is installed already, which is then this one.
    drop(aws_lc_rs::default_provider().install_default());
}

/// Interval between two reads of the files, and so the delay until a new certificate is served.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// Start of a PEM section, before its label.
const PEM_BEGIN: &str = "-----BEGIN ";
/// End of a PEM label.
const PEM_DASHES: &str = "-----";

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read file `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("file `{path}` is not {expected}: {found}")]
    NotPem { path: PathBuf, expected: &'static str, found: String },
    #[error("cannot parse certificate in `{path}`")]
    Damaged {
        path: PathBuf,
        #[source]
        source: x509_parser::nom::Err<X509Error>,
    },
    #[error("certificate in `{path}` is only valid from {from} to {to}")]
    NotValidNow { path: PathBuf, from: String, to: String },
    #[error("cannot use certificate with private key")]
    Pair(#[source] rustls::Error),
    #[error("cannot use certificate authority in `{path}`")]
    Authority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("cannot verify client certificates by the certificate authority in `{path}`")]
    ClientVerifier {
        path: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
}

/// The PEM files of a server, and the protocols that it offers (ALPN), e.g. `h2`.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificate authorities of clients. With them, each client must present a certificate of
    /// one of them.
    pub client_ca: Option<PathBuf>,
    pub protocols: &'static [&'static str],
}

/// Contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct PemFiles {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// The certificate in use.
pub struct ServerTls {
    files: TlsFiles,
    config: Arc<ServerConfig>,
    loaded: PemFiles,
}

impl ServerTls {
    /// Loads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = files.read_files()?;
        let config = Arc::new(files.to_server_config(&loaded)?);
        // Not fatal: without a certificate nothing would be served at all.
        if let Err(error) = files.check_valid_now(&loaded) {
            tracing::warn!(error = %Chain(&error), "Certificate is not valid: clients will refuse it");
        }
        files.publish_expiry(&loaded);
        Ok(Self { files, config, loaded })
    }

    /// Returns the configuration of the loaded files.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Watches the files and passes each new configuration to `replace`; never returns.
    ///
    /// A new certificate that cannot be used is logged and ignored. So is one that is not valid now
    /// while the current one is valid.
    pub async fn reload_on_change(&self, replace: impl Fn(Arc<ServerConfig>)) {
        let files = &self.files;
        let mut in_use = self.loaded.clone();
        let mut last_error = None;
        loop {
            sleep(RELOAD_INTERVAL).await;
            match files.find_replacement(&in_use) {
                Ok(None) => last_error = None,
                Ok(Some((found, config))) => {
                    replace(Arc::new(config));
                    tracing::info!("Certificate replaced");
                    files.publish_expiry(&found);
                    in_use = found;
                    last_error = None;
                }
                Err(error) => {
                    let error = Chain(&error).to_string();
                    if last_error.as_ref() != Some(&error) {
                        tracing::warn!(
                            error,
                            "Certificate cannot be replaced: the current one stays in use"
                        );
                        last_error = Some(error);
                    }
                }
            }
        }
    }
}

impl TlsFiles {
    /// Returns when the first certificate of the chain expires.
    ///
    /// # Errors
    /// [`TlsError`] if the files cannot be read, or certificate and key do not fit together.
    pub fn certificate_expiry(&self) -> Result<Option<Timestamp>, TlsError> {
        let contents = self.read_files()?;
        self.to_server_config(&contents)?;
        let chain = parse_certificates(&self.certificate, &contents.certificate)?;
        Ok(chain.iter().filter_map(|certificate| find_expiry(certificate)).min())
    }

    fn read_files(&self) -> Result<PemFiles, TlsError> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|source| TlsError::File { path: path.clone(), source })
        };
        Ok(PemFiles {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_ref().map(read).transpose()?,
        })
    }

    /// Returns the new contents of the files and their server configuration; `None` if the files are
    /// unchanged.
    fn find_replacement(
        &self,
        in_use: &PemFiles,
    ) -> Result<Option<(PemFiles, ServerConfig)>, TlsError> {
        let found = self.read_files()?;
        if &found == in_use {
            return Ok(None);
        }
        // The two files are replaced one after the other. A pair that does not fit yet fails here,
        // and the next turn reads the files again.
        let config = self.to_server_config(&found)?;
        match self.check_valid_now(&found) {
            // A failed renewal must not cause an outage.
            Err(error) if self.check_valid_now(in_use).is_ok() => Err(error),
            Ok(()) | Err(_) => Ok(Some((found, config))),
        }
    }

    /// Refuses a chain with a certificate that has expired or is not valid yet.
    fn check_valid_now(&self, contents: &PemFiles) -> Result<(), TlsError> {
        let chain = parse_certificates(&self.certificate, &contents.certificate)?;
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

    /// Publishes when the first certificate of the chain expires.
    fn publish_expiry(&self, contents: &PemFiles) {
        let chain =
            parse_certificates(&self.certificate, &contents.certificate).unwrap_or_default();
        let expiry = |certificate: &CertificateDer<'_>| {
            let (_, parsed) = parse_x509_certificate(certificate).ok()?;
            Some(parsed.validity().not_after.timestamp())
        };
        if let Some(first) = chain.iter().filter_map(expiry).min() {
            set_certificate_expiry(first);
        }
    }

    fn to_server_config(&self, contents: &PemFiles) -> Result<ServerConfig, TlsError> {
        let chain = parse_certificates(&self.certificate, &contents.certificate)?;
        let key = parse_private_key(&self.key, &contents.key)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match self.client_ca.as_ref().zip(contents.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, text)) => {
                let roots = Arc::new(parse_authorities(path, text)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let failed = |source| TlsError::ClientVerifier { path: path.clone(), source };
                builder.with_client_cert_verifier(verifier.map_err(failed)?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        config.alpn_protocols =
            self.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

/// Returns the certificate authorities in `text`, the contents of the file at `path`.
fn parse_authorities(path: &Path, text: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in parse_certificates(path, text)? {
        let unusable = |source| TlsError::Authority { path: path.to_owned(), source };
        roots.add(authority).map_err(unusable)?;
    }
    Ok(roots)
}

/// Returns the certificate chain in `text`, the contents of the file at `path`.
fn parse_certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let expected = "a certificate chain in PEM";
    let chain: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(not_pem(path, expected, describe_contents(text))),
        chain => chain.map_err(|error| not_pem(path, expected, describe_pem_error(&error))),
    }
}

/// Returns the private key in `text`, the contents of the file at `path`.
fn parse_private_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let is_absent = matches!(error, PemError::NoItemsFound);
        let found = if is_absent { describe_contents(text) } else { describe_pem_error(&error) };
        not_pem(path, "a private key in PEM", found)
    })
}

fn not_pem(path: &Path, expected: &'static str, found: String) -> TlsError {
    TlsError::NotPem { path: path.to_owned(), expected, found }
}

fn describe_pem_error(error: &PemError) -> String {
    format!("its PEM is invalid: {error}")
}

/// Describes the contents of a file without the expected section, for the operator who configured
/// it.
fn describe_contents(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let label = text.split_once(PEM_BEGIN).and_then(|(_, rest)| rest.split_once(PEM_DASHES));
    match label.map(|(label, _)| label) {
        Some("ENCRYPTED PRIVATE KEY") => {
            "it holds an encrypted private key: decrypt it with `openssl pkey`".to_owned()
        }
        Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => {
            "it holds a certificate request: name the certificate that was issued for it".to_owned()
        }
        Some(label) if label.ends_with("PRIVATE KEY") => "it holds a private key".to_owned(),
        Some("CERTIFICATE" | "TRUSTED CERTIFICATE") => "it holds a certificate".to_owned(),
        Some(label) => format!("it holds a section `{}`", label.escape_debug()),
        None if bytes.trim_ascii().is_empty() => "it is empty".to_owned(),
        // The ASN.1 tag SEQUENCE: first byte of each certificate, key and PKCS #12 archive in DER.
        None if bytes.first() == Some(&0x30) => {
            "it is binary (DER or PKCS #12): convert it with `openssl x509 -inform der` or \
             `openssl pkcs12`"
                .to_owned()
        }
        None => "it has no line `-----BEGIN ...-----`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// Writes a new certificate that is valid from 1 January of `from` to 1 January of `to`.
    fn write_certificate(files: &TlsFiles, from: i32, to: i32) -> PemFiles {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(from, 1, 1);
        parameters.not_after = date_time_ymd(to, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files.read_files().unwrap()
    }

    #[test]
    fn invalid_certificate_never_replaces_a_valid_one() {
        let folder = tempfile::tempdir().unwrap();
        let in_folder = |name: &str| folder.path().join(name);
        let files = TlsFiles {
            certificate: in_folder("chain.pem"),
            key: in_folder("key.pem"),
            client_ca: None,
            protocols: &["http/1.1"],
        };
        let valid = write_certificate(&files, 2000, 4000);
        assert!(files.find_replacement(&valid).unwrap().is_none(), "unchanged");
        for (from, to) in [(2000, 2001), (3999, 4000)] {
            let invalid = write_certificate(&files, from, to);
            let refused = files.find_replacement(&valid).err().unwrap().to_string();
            assert!(refused.contains(&from.to_string()), "{refused}");
            let other = write_certificate(&files, from, to);
            let replaced = files.find_replacement(&invalid).unwrap();
            assert!(replaced.is_some_and(|(found, _)| found == other), "both are invalid");
        }
        let renewed = write_certificate(&files, 2000, 4000);
        let replaced = files.find_replacement(&valid).unwrap();
        assert!(replaced.is_some_and(|(found, _)| found == renewed));
    }

    #[test]
    fn error_describes_contents_of_a_wrong_certificate_file() {
        let found = |bytes: &[u8]| {
            let refused =
                parse_certificates(Path::new("chain.pem"), bytes).unwrap_err().to_string();
            let found =
                refused.strip_prefix("file `chain.pem` is not a certificate chain in PEM: ");
            found.unwrap_or_else(|| panic!("{refused}")).to_owned()
        };
        let section =
            |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        assert_eq!(found(b"\n"), "it is empty");
        assert_eq!(found(b"hello"), "it has no line `-----BEGIN ...-----`");
        assert!(found(&[0x30, 0x82, 1, 1]).starts_with("it is binary (DER or PKCS #12)"));
        assert_eq!(found(section("PRIVATE KEY").as_bytes()), "it holds a private key");
        assert_eq!(found(section("RSA PRIVATE KEY").as_bytes()), "it holds a private key");
        let request = found(section("CERTIFICATE REQUEST").as_bytes());
        assert!(request.starts_with("it holds a certificate request"), "{request}");
        assert_eq!(found(section("PUBLIC KEY").as_bytes()), "it holds a section `PUBLIC KEY`");
        let cut_off = section("CERTIFICATE").replace("-----END CERTIFICATE-----", "");
        assert!(found(cut_off.as_bytes()).starts_with("its PEM is invalid"));
    }

    #[test]
    fn error_describes_contents_of_a_wrong_key_file() {
        let found = |label: &str| {
            let text = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
            parse_private_key(Path::new("key.pem"), text.as_bytes()).unwrap_err().to_string()
        };
        assert!(found("CERTIFICATE").ends_with("not a private key in PEM: it holds a certificate"));
        assert!(found("ENCRYPTED PRIVATE KEY").ends_with("decrypt it with `openssl pkey`"));
    }
}
