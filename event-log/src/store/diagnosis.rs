//! Diagnosis of an unreachable event store. The client crate hides the network's errors, so this
//! module connects once more by itself.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use eventstore::ClientSettings;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Maximum duration of each step: name resolution, connection, TLS handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

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

/// Connects to the store as the client does, and returns the first error; `None` if there is none.
pub(crate) async fn find_cause(settings: &ClientSettings) -> Option<UnreachableCause> {
    let endpoint = settings.hosts().first()?;
    let port = u16::try_from(endpoint.port).ok()?;
    // An IPv6 address is in brackets, which name resolution does not know.
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let resolved = timeout(STEP_TIMEOUT, lookup_host((host.clone(), port))).await;
    let address = match resolved {
        Ok(Ok(mut addresses)) => addresses.next(),
        Ok(Err(error)) => return Some(UnreachableCause::Name(format!("{host}: {error}"))),
        Err(_) => return Some(UnreachableCause::Name(format!("{host}: no answer in time"))),
    };
    let Some(address) = address else {
        return Some(UnreachableCause::Name(format!("{host} has no address")));
    };
    let settings = settings.clone();
    // A blocking task cannot be cancelled; this one ends because each step has a time-out.
    spawn_blocking(move || open_connection(address, &host, &settings).err()).await.ok().flatten()
}

fn open_connection(
    address: SocketAddr,
    host: &str,
    settings: &ClientSettings,
) -> Result<(), UnreachableCause> {
    let stream = TcpStream::connect_timeout(&address, STEP_TIMEOUT);
    let stream = stream.map_err(|error| {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            UnreachableCause::Refused
        } else if error.kind() == io::ErrorKind::TimedOut {
            UnreachableCause::Silent
        } else {
            UnreachableCause::Connection(error.to_string())
        }
    })?;
    // Without verification the client accepts any certificate: a handshake would prove nothing.
    if settings.is_secure_mode_enabled() && settings.is_tls_certificate_verification_enabled() {
        return shake_hands(stream, host, settings).map_err(|error| {
            let tls = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            UnreachableCause::Tls(tls.map_or_else(|| error.to_string(), describe_tls_error))
        });
    }
    Ok(())
}

fn shake_hands(mut stream: TcpStream, host: &str, settings: &ClientSettings) -> io::Result<()> {
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
    tls.complete_io(&mut stream).map(drop)
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
        "certificate has expired".to_owned()
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
