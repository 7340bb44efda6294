//! Validity of X.509 certificates.

use jiff::Timestamp;
use x509_parser::parse_x509_certificate;

/// Returns when a certificate in DER expires; `None` if it cannot be parsed.
pub fn find_expiry(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
