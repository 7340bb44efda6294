//! Certificates and keys in PEM, and what a file holds that has neither.

use std::path::Path;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// What begins a section, in front of its label.
const BEGIN: &str = "-----BEGIN ";
/// What ends a label.
const DASHES: &str = "-----";

/// Returns the certificate chain in `text`, the contents of the file at `path`.
pub(super) fn certificates(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let expected = "a certificate chain in PEM";
    let chain: Result<Vec<_>, Error> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(not_pem(path, expected, describe(text))),
        chain => chain.map_err(|error| not_pem(path, expected, broken(&error))),
    }
}

/// Returns the private key in `text`, the contents of the file at `path`.
pub(super) fn private_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let is_absent = matches!(error, Error::NoItemsFound);
        let found = if is_absent { describe(text) } else { broken(&error) };
        not_pem(path, "a private key in PEM", found)
    })
}

fn not_pem(path: &Path, expected: &'static str, found: String) -> TlsError {
    TlsError::NotPem { path: path.to_owned(), expected, found }
}

fn broken(error: &Error) -> String {
    format!("its PEM is broken: {error}")
}

/// Returns what a file holds, for a person who has named the wrong one.
fn describe(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let label = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(DASHES));
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
        // The ASN.1 tag that every certificate, key and PKCS #12 archive begins with.
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
    use super::*;

    #[test]
    fn file_that_is_not_a_certificate_is_told_by_what_it_is() {
        let found = |bytes: &[u8]| {
            let refused = certificates(Path::new("chain.pem"), bytes).unwrap_err().to_string();
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
        assert!(found(cut_off.as_bytes()).starts_with("its PEM is broken"));
    }

    #[test]
    fn file_that_is_not_a_key_is_told_by_what_it_is() {
        let found = |label: &str| {
            let text = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
            private_key(Path::new("key.pem"), text.as_bytes()).unwrap_err().to_string()
        };
        assert!(found("CERTIFICATE").ends_with("not a private key in PEM: it holds a certificate"));
        assert!(found("ENCRYPTED PRIVATE KEY").ends_with("decrypt it with `openssl pkey`"));
    }
}
