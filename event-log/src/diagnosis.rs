//! Why the event store cannot be reached. The client crate keeps to itself what the network said, so
//! this connects once more and looks.

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

/// How long each step may take: name resolution, connection, TLS handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the event store cannot be reached.
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
    /// Something is there. In the client's words.
    #[error("connected, but the call failed: {0}")]
    Call(String),
}

impl UnreachableCause {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name(_) => "check the host name in `event_store.url`, and this machine's DNS",
            Self::Refused => {
                "is it running where `event_store.url` says? start one with `dofs node`"
            }
            Self::Silent | Self::Connection(_) => {
                "check the address in `event_store.url`, the network and its firewalls"
            }
            Self::Tls(_) => {
                "check the store's certificate, name its issuer with `tlsCaFile` in \
                 `event_store.url`, or say `tls=false` if the store has no TLS"
            }
            Self::Call(_) => {
                "look at the store's own log; `tls` in `event_store.url` must be as the store has it"
            }
        }
    }
}

/// Connects to the store as the client does, and returns what is in the way; `None` if nothing is.
pub(crate) async fn find_cause(settings: &ClientSettings) -> Option<UnreachableCause> {
    let endpoint = settings.hosts().first()?;
    let port = u16::try_from(endpoint.port).ok()?;
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
    // It ends by itself: each step has a time-out.
    spawn_blocking(move || connect(address, &host, &settings).err()).await.ok().flatten()
}

fn connect(
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
    // Without checks of certificates the client gets by with any.
    if settings.is_secure_mode_enabled() && settings.is_tls_certificate_verification_enabled() {
        return shake_hands(stream, host, settings).map_err(|error| {
            let tls = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
            UnreachableCause::Tls(tls.map_or_else(|| error.to_string(), describe))
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

/// Says in an operator's words why a handshake failed.
fn describe(error: &rustls::Error) -> String {
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

    async fn cause(url: &str) -> Option<UnreachableCause> {
        find_cause(&url.parse().unwrap()).await
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(cause(&format!("esdb://{address}?tls=false")).await, None);
        let unresolved = cause("esdb://store.invalid:2113?tls=false").await;
        assert!(matches!(unresolved, Some(UnreachableCause::Name(_))), "{unresolved:?}");

        let answering = std::thread::spawn(move || {
            // The first is of the attempt before.
            let mut stream = listener.incoming().nth(1).unwrap().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let plain = cause(&format!("esdb://{address}")).await;
        answering.join().unwrap();
        let expected = "the server does not speak TLS".to_owned();
        assert_eq!(plain, Some(UnreachableCause::Tls(expected)));
        assert_eq!(cause(&format!("esdb://{address}")).await, Some(UnreachableCause::Refused));
    }
}
