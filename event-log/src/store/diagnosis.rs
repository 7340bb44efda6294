//! Diagnosis of an unreachable event store, and inspection of its certificates. The client crate hides
//! the network's errors, so this module connects once more by itself.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use eventstore::{ClientSettings, Endpoint};
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use service_kit::certificate::find_expiry;
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Maximum duration of each step: name resolution, connection, TLS handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of a name's addresses to connect to.
const MAX_ADDRESSES: usize = 4;

/// Reason of a handshake that failed because the certificate has expired.
const EXPIRED: &str = "certificate has expired";

/// Why the event store is unreachable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreachableCause {
    #[error("name not resolved: {0}")]
    Name(String),
    #[error("connection refused")]
    Refused,
    #[error("no answer to a connection attempt within 2 s")]
    Silent,
    #[error("connection failed: {0}")]
    Connection(String),
    #[error("TLS: {0}")]
    Tls(String),
    /// A server accepts connections, but the call failed; the client's message.
    #[error("connected, but the call failed: {0}")]
    Call(String),
}

impl UnreachableCause {
    /// Returns what an operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name(_) => "check the host name in `event_store.url`, and this machine's DNS",
            Self::Refused => {
                "check that the store runs at `event_store.url`, or start one with `dofs node`"
            }
            Self::Silent | Self::Connection(_) => {
                "check the address in `event_store.url`, the network and its firewalls"
            }
            Self::Tls(reason) if reason == EXPIRED => {
                "renew the certificate of the event store; if it is valid, check this machine's clock"
            }
            Self::Tls(_) => {
                "check the store's certificate; name its issuer with `tlsCaFile` in \
                 `event_store.url`, or set `tls=false` if the store has no TLS"
            }
            Self::Call(_) => {
                "check the store's log, and that `tls` in `event_store.url` matches the store's setting"
            }
        }
    }
}

/// Result of a connection to one host of the store's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// Host and port as the address names them.
    pub host: String,
    /// The IP address and port that the host name resolves to; `None` if it does not resolve.
    pub address: Option<SocketAddr>,
    /// Why the host cannot be reached; `None` if it can.
    pub cause: Option<UnreachableCause>,
    /// When the host's certificate expires; `None` without TLS, or if it was not verified.
    pub certificate_expires_at: Option<Timestamp>,
}

/// Connects to the store as the client does, and returns the first error; `None` if there is none.
pub(crate) async fn find_cause(settings: &ClientSettings) -> Option<UnreachableCause> {
    examine_host(settings.hosts().first()?, settings).await.cause
}

/// Connects to one host of the address, as the client does. Takes 6 s at most.
pub(crate) async fn examine_host(endpoint: &Endpoint, settings: &ClientSettings) -> HostReport {
    // An IPv6 address is in brackets, which name resolution does not know.
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut report = HostReport {
        host: format!("{}:{}", endpoint.host, endpoint.port),
        address: None,
        cause: None,
        certificate_expires_at: None,
    };
    let addresses = match resolve_name(&host, endpoint.port).await {
        Ok(addresses) => addresses,
        Err(cause) => return HostReport { cause: Some(cause), ..report },
    };
    report.address = addresses.first().copied();
    let settings = settings.clone();
    // A blocking task cannot be cancelled; this one ends because each step has a time-out.
    let connected = spawn_blocking(move || {
        let (address, stream) = open_connection(&addresses)?;
        Ok((address, verify_certificate(stream, &host, &settings)?))
    });
    match connected.await {
        Ok(Ok((address, expires_at))) => {
            report.address = Some(address);
            report.certificate_expires_at = expires_at;
        }
        Ok(Err(cause)) => report.cause = Some(cause),
        // The runtime is shutting down.
        Err(_) => {}
    }
    report
}

async fn resolve_name(host: &str, port: u32) -> Result<Vec<SocketAddr>, UnreachableCause> {
    let failed = |reason: &str| UnreachableCause::Name(format!("{host}{reason}"));
    let port = u16::try_from(port).map_err(|_| failed(": invalid port"))?;
    match timeout(STEP_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.take(MAX_ADDRESSES).collect();
            if addresses.is_empty() { Err(failed(" has no address")) } else { Ok(addresses) }
        }
        Ok(Err(error)) => Err(failed(&format!(": {error}"))),
        Err(_) => Err(failed(": no answer in time")),
    }
}

/// Connects to the first address that accepts a connection, as the client does.
fn open_connection(addresses: &[SocketAddr]) -> Result<(SocketAddr, TcpStream), UnreachableCause> {
    let n_addresses = u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut first_error = UnreachableCause::Refused;
    for (index, address) in addresses.iter().enumerate() {
        match TcpStream::connect_timeout(address, STEP_TIMEOUT / n_addresses) {
            Ok(stream) => return Ok((*address, stream)),
            Err(error) if index == 0 => first_error = to_cause(&error),
            Err(_) => {}
        }
    }
    Err(first_error)
}

fn to_cause(error: &io::Error) -> UnreachableCause {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        UnreachableCause::Refused
    } else if error.kind() == io::ErrorKind::TimedOut {
        UnreachableCause::Silent
    } else {
        UnreachableCause::Connection(error.to_string())
    }
}

/// Verifies the server's certificate if the client does, and returns when it expires.
fn verify_certificate(
    stream: TcpStream,
    host: &str,
    settings: &ClientSettings,
) -> Result<Option<Timestamp>, UnreachableCause> {
    // Without verification the client accepts any certificate: a handshake would prove nothing.
    if !settings.is_secure_mode_enabled() || !settings.is_tls_certificate_verification_enabled() {
        return Ok(None);
    }
    shake_hands(stream, host, settings).map_err(|error| {
        let tls = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        UnreachableCause::Tls(tls.map_or_else(|| error.to_string(), describe_tls_error))
    })
}

/// Makes a handshake, and returns when the server's certificate expires.
fn shake_hands(
    mut stream: TcpStream,
    host: &str,
    settings: &ClientSettings,
) -> io::Result<Option<Timestamp>> {
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = settings.tls_ca_file() {
        let named = CertificateDer::pem_file_iter(file).map_err(io::Error::other)?;
        roots.add_parsable_certificates(named.flatten());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    tls.complete_io(&mut stream)?;
    let presented = tls.peer_certificates().and_then(|chain| chain.first());
    Ok(presented.and_then(|certificate| find_expiry(certificate)))
}

/// Describes for an operator why a handshake failed.
fn describe_tls_error(error: &rustls::Error) -> String {
    use CertificateError as Certificate;
    if matches!(error, rustls::Error::InvalidMessage(_)) {
        return "the server does not speak TLS".to_owned();
    }
    let rustls::Error::InvalidCertificate(certificate) = error else { return error.to_string() };
    if matches!(certificate, Certificate::UnknownIssuer) {
        "unknown issuer".to_owned()
    } else if matches!(certificate, Certificate::Expired | Certificate::ExpiredContext { .. }) {
        EXPIRED.to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    async fn find_cause_at(url: &str) -> Option<UnreachableCause> {
        find_cause(&url.parse().unwrap()).await
    }

    #[tokio::test]
    async fn cause_of_a_failed_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(find_cause_at(&format!("esdb://{address}?tls=false")).await, None);
        let unresolved = find_cause_at("esdb://store.invalid:2113?tls=false").await;
        assert!(matches!(unresolved, Some(UnreachableCause::Name(_))), "{unresolved:?}");

        let answering = std::thread::spawn(move || {
            // The first connection is that of the attempt above.
            let mut stream = listener.incoming().nth(1).unwrap().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let plain = find_cause_at(&format!("esdb://{address}")).await;
        answering.join().unwrap();
        let expected = "the server does not speak TLS".to_owned();
        assert_eq!(plain, Some(UnreachableCause::Tls(expected)));
        assert_eq!(
            find_cause_at(&format!("esdb://{address}")).await,
            Some(UnreachableCause::Refused)
        );
    }
}
