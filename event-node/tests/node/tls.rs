//! TLS: certificates, client certificates, and clients that use the wrong protocol.

use std::path::Path;

use event_node::NodeConfig;
use eventstore::{Client, ReadStreamOptions, StreamState};
use testkit::certificates::{CertificateFiles, TestAuthority};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    fixture::{TestNode, append_events, new_events, read_revisions, within_deadline},
    raw_http::send_http1,
    users::add_users,
};

fn use_certificate(config: &mut NodeConfig, files: &CertificateFiles) {
    config.tls_certificate = files.certificate.display().to_string();
    config.tls_key = files.key.display().to_string();
}

/// Starts a node with a certificate of a new authority in the node's folder.
async fn start_node() -> (TestNode, TestAuthority) {
    let mut authority = None;
    let node = TestNode::start_with(|config, folder| {
        let created = TestAuthority::create(folder, "ca");
        use_certificate(config, &created.issue("node"));
        authority = Some(created);
    })
    .await;
    (node, authority.unwrap())
}

fn trusting(node: &TestNode, authority: &Path) -> Client {
    node.client_with("", &format!("tls=true&tlsCaFile={}", authority.display()))
}

/// Returns the error of a read, which must end soon.
async fn read_error(client: &Client) -> String {
    let options = ReadStreamOptions::default();
    let read = client.read_stream("a", &options);
    within_deadline(read).await.err().unwrap().to_string()
}

#[tokio::test]
async fn client_that_trusts_the_authority_is_served() {
    let (node, authority) = start_node().await;
    let client = trusting(&node, &authority.certificate);
    append_events(&client, "a", StreamState::NoStream, new_events(3)).await;
    assert_eq!(read_revisions(&client, "a").await, [0, 1, 2]);
    let other = TestAuthority::create(node.folder(), "other");
    read_error(&trusting(&node, &other.certificate)).await;
    node.stop().await;
}

#[tokio::test]
async fn plain_text_and_tls_are_told_apart_at_once() {
    let (node, authority) = start_node().await;
    let response = send_http1(node.port(), "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = response.await;
    assert!(response.starts_with("HTTP/1.1 400") && response.contains("TLS only"), "{response}");
    read_error(&node.client_with("", "tls=false")).await;
    // A client that sends nothing does not hold up others.
    let silent = tokio::net::TcpStream::connect(("127.0.0.1", node.port())).await.unwrap();
    let client = trusting(&node, &authority.certificate);
    append_events(&client, "a", StreamState::NoStream, new_events(1)).await;
    drop(silent);
    node.stop().await;

    let plain = TestNode::start().await;
    let ca = plain.folder().join("ca.pem");
    TestAuthority::create(plain.folder(), "ca");
    read_error(&trusting(&plain, &ca)).await;
    plain.stop().await;
}

#[tokio::test]
async fn liveness_probe_is_answered_over_tls_without_credentials() {
    let mut authority = None;
    let node = TestNode::start_with(|config, folder| {
        add_users(config, folder);
        let created = TestAuthority::create(folder, "ca");
        use_certificate(config, &created.issue("node"));
        authority = Some(created.certificate);
    })
    .await;
    let ca = std::fs::read(authority.unwrap()).unwrap();
    let mut stream = connect_http1(node.port(), &ca).await;
    let request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = Vec::new();
    within_deadline(stream.read_to_end(&mut response)).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&response));
    node.stop().await;
}

/// Opens a TLS connection for HTTP/1.1.
async fn connect_http1(
    port: u16,
    ca: &[u8],
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

#[tokio::test]
async fn clients_need_a_certificate_of_the_configured_authority() {
    let mut authority = None;
    let node = TestNode::start_with(|config, folder| {
        let created = TestAuthority::create(folder, "ca");
        use_certificate(config, &created.issue("node"));
        config.tls_client_ca = created.certificate.display().to_string();
        authority = Some(created);
    })
    .await;
    let authority = authority.unwrap();
    let client = |files: &CertificateFiles| {
        let [ca, certificate, key] = [&authority.certificate, &files.certificate, &files.key]
            .map(|file| file.display().to_string());
        let parameters =
            format!("tls=true&tlsCaFile={ca}&userCertFile={certificate}&userKeyFile={key}");
        node.client_with("", &parameters)
    };
    let accepted = client(&authority.issue("client"));
    append_events(&accepted, "a", StreamState::NoStream, new_events(1)).await;
    let other = TestAuthority::create(node.folder(), "other");
    read_error(&client(&other.issue("stranger"))).await;
    read_error(&trusting(&node, &authority.certificate)).await;
    node.stop().await;
}

#[tokio::test]
async fn replaced_certificate_is_served_to_new_connections() {
    let (node, first) = start_node().await;
    let open = trusting(&node, &first.certificate);
    append_events(&open, "a", StreamState::NoStream, new_events(1)).await;
    let second = TestAuthority::create(node.folder(), "second");
    let renewed = second.issue("renewed");
    std::fs::copy(renewed.key, node.folder().join("node-key.pem")).unwrap();
    std::fs::copy(renewed.certificate, node.folder().join("node-chain.pem")).unwrap();
    let is_served = async || {
        let client = trusting(&node, &second.certificate);
        client.read_stream("a", &ReadStreamOptions::default()).await.is_ok()
    };
    within_deadline(async { while !is_served().await {} }).await;
    assert_eq!(read_revisions(&open, "a").await, [0], "open connections stay");
    node.stop().await;
}
