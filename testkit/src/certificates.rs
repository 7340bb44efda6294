//! Certificates of a private authority, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A certificate and its private key.
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A private authority whose files are in one folder.
pub struct TestAuthority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// File with the authority's own certificate.
    pub certificate: PathBuf,
}

impl TestAuthority {
    /// Creates an authority that writes to `folder`. The names of its files begin with `name`.
    pub fn create(folder: &Path, name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names are valid");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("the system has randomness");
        let pem = parameters.self_signed(&key).expect("the parameters are valid").pem();
        let certificate = folder.join(format!("{name}.pem"));
        std::fs::write(&certificate, pem).expect("the folder can be written");
        Self { folder: folder.to_owned(), issuer: Issuer::new(parameters, key), certificate }
    }

    /// Issues a certificate for this machine, in files whose names begin with `name`.
    pub fn issue(&self, name: &str) -> CertificateFiles {
        let key = KeyPair::generate().expect("the system has randomness");
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let parameters = CertificateParams::new(hosts).expect("the names are valid");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("the key can sign");
        let path = |part: &str| self.folder.join(format!("{name}-{part}.pem"));
        let files = CertificateFiles { certificate: path("chain"), key: path("key") };
        std::fs::write(&files.certificate, certificate.pem()).expect("the folder can be written");
        std::fs::write(&files.key, key.serialize_pem()).expect("the folder can be written");
        files
    }
}
