//! A client's connection: time-outs, limits, malformed requests, and how it is closed.

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde_json::json;
use service_kit::auth::{Access, KeyRing};
use service_kit::http::{ApiConfig, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{ENDLESS, TEST_TIMEOUT, TOO_LONG_BODY, non_zero, router_with_access, test_config};

/// A running server; dropping it stops it.
struct Server {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinSet<()>,
}

fn start_server(config: ApiConfig) -> Server {
    start_server_with(config, Access::Open)
}

fn start_server_with(config: ApiConfig, access: Access) -> Server {
    let listener = Listener::bind(&config.listen).unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let mut task = JoinSet::new();
    let stopped = stop.clone();
    task.spawn(async move {
        let router = router_with_access(&config, access);
        listener.serve(router, &config, stopped, TEST_TIMEOUT).await.unwrap();
    });
    Server { address, stop, task }
}

#[tokio::test]
async fn unfinished_request_head_closes_the_connection() {
    let server = start_server(ApiConfig { header_timeout_ms: non_zero(50), ..test_config() });
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut received = Vec::new();
    timeout(TEST_TIMEOUT, slow.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(!received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn connection_without_a_request_is_closed() {
    let server = start_server(ApiConfig { header_timeout_ms: non_zero(50), ..test_config() });
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut received = Vec::new();
    timeout(TEST_TIMEOUT, idle.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.is_empty());
}

/// Returns a connection whose first request has been answered.
async fn connect_and_request(server: &Server) -> TcpStream {
    let mut client = TcpStream::connect(server.address).await.unwrap();
    assert!(is_request_answered(&mut client).await);
    client
}

/// Returns whether a request is answered on this connection; `false` if the connection is closed.
async fn is_request_answered(client: &mut TcpStream) -> bool {
    // `ok` is the whole body, so the response ends with it.
    let (mut response, mut byte) = (Vec::new(), [0]);
    let is_sent = client.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok();
    while is_sent && !response.ends_with(b"\r\n\r\nok") {
        match timeout(TEST_TIMEOUT, client.read(&mut byte)).await.unwrap() {
            Ok(1) => response.extend(byte),
            Ok(_) | Err(_) => return false,
        }
    }
    is_sent
}

#[tokio::test]
async fn keep_alive_may_be_longer_than_the_header_timeout() {
    let server = start_server(ApiConfig { header_timeout_ms: non_zero(50), ..test_config() });
    let mut kept = connect_and_request(&server).await;
    // Opened later, and closed after the header time-out.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    timeout(TEST_TIMEOUT, silent.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    assert!(is_request_answered(&mut kept).await);
}

#[tokio::test]
async fn idle_connection_is_closed_after_keep_alive() {
    let server = start_server(ApiConfig { keep_alive_ms: non_zero(50), ..test_config() });
    let mut idle = connect_and_request(&server).await;
    let mut received = Vec::new();
    timeout(TEST_TIMEOUT, idle.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.is_empty(), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn unfinished_second_head_closes_the_connection() {
    let server = start_server(ApiConfig { header_timeout_ms: non_zero(50), ..test_config() });
    let mut slow = connect_and_request(&server).await;
    slow.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut received = Vec::new();
    timeout(TEST_TIMEOUT, slow.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(!received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn client_that_closes_its_sending_side_is_answered() {
    let server = start_server(test_config());
    let requests = [
        "GET /ok HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{}",
    ];
    for request in requests {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut response = String::new();
        timeout(TEST_TIMEOUT, client.read_to_string(&mut response)).await.unwrap().unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    }
}

#[tokio::test]
async fn connection_closed_within_a_request_ends() {
    let server = start_server(test_config());
    let halves = [
        "GET /ok HTTP/1.1\r\nHo",
        "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: 20\r\n\r\n{",
    ];
    for half in halves {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(half.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        timeout(TEST_TIMEOUT, client.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn request_in_flight_at_stop_is_answered() {
    let server = start_server(test_config());
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let slow = b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(slow).await.unwrap();
    // The server asks for the body, so the request is in flight.
    let mut go_ahead = [0; 25];
    timeout(TEST_TIMEOUT, client.read_exact(&mut go_ahead)).await.unwrap().unwrap();
    assert_eq!(&go_ahead, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.stop.cancel();
    // The server has handled the stop once its port is closed.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    client.write_all(b"{}").await.unwrap();
    let mut response = String::new();
    timeout(TEST_TIMEOUT, client.read_to_string(&mut response)).await.unwrap().unwrap();
    assert!(
        response.starts_with("HTTP/1.1 200 OK") && response.contains("connection: close"),
        "{response}"
    );
}

/// Repeats a request until the connection is not refused.
async fn wait_until_accepted(address: std::net::SocketAddr) {
    loop {
        let mut client = TcpStream::connect(address).await.unwrap();
        // A refused connection may be reset while the request is sent.
        let mut response = [0; 12];
        let is_sent = client.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok();
        if is_sent && client.read_exact(&mut response).await.is_ok() && response.ends_with(b"200") {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Sends bytes, and returns what the server sends until it closes the connection.
async fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let mut response = Vec::new();
    timeout(TEST_TIMEOUT, client.read_to_end(&mut response)).await.unwrap().unwrap();
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn malformed_request_gets_our_error_body() {
    let server = start_server(test_config());
    let many = "a: b\r\n".repeat(10_000);
    let cases = [
        ("\u{1}\u{2}\r\n\r\n".to_owned(), 400, "Bad Request"),
        ("GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n".to_owned(), 400, "Bad Request"),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431, "Request Header Fields Too Large"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "u".repeat(70_000)), 414, "URI Too Long"),
    ];
    for (sent, status, text) in cases {
        let response = exchange(&server, sent.as_bytes()).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, json!({"message": text}).to_string(), "{response}");
        assert!(head.contains("content-type: application/json") && head.contains("nosniff"));
    }
}

#[tokio::test]
async fn slow_bodies_time_out_and_take_no_permit() {
    let server = start_server(ApiConfig { body_timeout_ms: non_zero(300), ..test_config() });
    let half = b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
    let mut slow = JoinSet::new();
    // More than `max_concurrency`.
    for _ in 0..4 {
        let address = server.address;
        slow.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(half).await.unwrap();
            let mut response = Vec::new();
            timeout(TEST_TIMEOUT, client.read_to_end(&mut response)).await.unwrap().unwrap();
            String::from_utf8(response).unwrap()
        });
    }
    let quick =
        exchange(&server, b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(quick.starts_with("HTTP/1.1 200"), "{quick}");
    while let Some(response) = slow.join_next().await {
        let response = response.unwrap();
        assert!(response.starts_with("HTTP/1.1 408"), "{response}");
        assert!(response.ends_with(r#"{"message":"Request Timeout"}"#), "{response}");
    }
}

#[tokio::test]
async fn connection_stays_usable_after_an_unneeded_body() {
    let without_keys = Access::Keys(KeyRing::new(watch::channel(None).1), Arc::default());
    for (access, path, status) in [(Access::Open, "/nothing", 404), (without_keys, "/json", 503)] {
        let server = start_server_with(test_config(), access);
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // Meanwhile the server could answer the first head before its body arrives.
        exchange(&server, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let next = b"{} GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(next).await.unwrap();
        let mut response = String::new();
        timeout(TEST_TIMEOUT, client.read_to_string(&mut response)).await.unwrap().unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{response}");
        assert!(response.contains("HTTP/1.1 200"), "{response}");
    }
}

#[tokio::test]
async fn response_announces_that_the_connection_closes() {
    let server = start_server(test_config());
    let long = format!("41\r\n{TOO_LONG_BODY}\r\n0\r\n\r\n");
    let cases = [
        ("POST /json", "Host: x\r\nContent-Length: 1000000", "", 413),
        ("POST /json", "Host: x\r\nTransfer-Encoding: chunked", long.as_str(), 413),
        ("POST /json", "Host: x\r\nTransfer-Encoding: chunked", "nonsense\r\n", 400),
        ("POST /nothing", "Host: x\r\nContent-Length: 1000000", "", 404),
        ("POST /nothing", "Host: x\r\nTransfer-Encoding: chunked", long.as_str(), 404),
        ("POST /nothing", "Host: x\r\nExpect: 100-continue\r\nContent-Length: 3", "", 404),
        ("POST /json", "Content-Length: 3", "", 400),
        ("POST /livez", "Host: x\r\nContent-Length: 3", "", 405),
    ];
    for (line, headers, body, status) in cases {
        let request = format!("{line} HTTP/1.1\r\n{headers}\r\n\r\n{body}");
        let response = exchange(&server, request.as_bytes()).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {response}");
        assert!(response.contains("\r\nconnection: close\r\n"), "{request}: {response}");
    }
}

#[tokio::test]
async fn pipelined_request_with_two_body_lengths_is_refused() {
    let server = start_server(test_config());
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked";
    let swapped = "Transfer-Encoding: chunked\r\nContent-Length: 5";
    let firsts = [
        ("GET /ok", "", ""),
        ("POST /json", "Content-Length: 2\r\n", "{}"),
        ("POST /json", "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
    ];
    for (line, framing, body) in firsts {
        for framings in [both, swapped] {
            let first = format!("{line} HTTP/1.1\r\nHost: x\r\n{framing}\r\n{body}");
            let unclear = format!("POST /json HTTP/1.1\r\nHost: x\r\n{framings}\r\n\r\n");
            let smuggled = "0\r\n\r\nGET /ok HTTP/1.1\r\nHost: x\r\n\r\n";
            // In one write, so that the server reads both requests at once.
            let response =
                exchange(&server, format!("{first}{unclear}{smuggled}").as_bytes()).await;
            let (_, refused) = response.rsplit_once("HTTP/1.1 ").unwrap();
            assert!(response.starts_with("HTTP/1.1 200"), "{line}: {response}");
            assert!(refused.starts_with("400 Bad Request"), "{line}: {response}");
            assert_eq!(response.matches("HTTP/1.1 ").count(), 2, "{line}: {response}");
        }
    }
}

#[tokio::test]
async fn connection_of_a_client_that_does_not_read_is_closed() {
    let one = NonZeroUsize::MIN;
    let limits =
        ApiConfig { max_connections: one, write_timeout_ms: non_zero(100), ..test_config() };
    let server = start_server(limits);
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    timeout(TEST_TIMEOUT, silent.read_exact(&mut begun)).await.unwrap().unwrap();
    // The handler's permit is free again, and so is the connection's.
    drop(timeout(TEST_TIMEOUT, ENDLESS.acquire()).await.unwrap().unwrap());
    timeout(TEST_TIMEOUT, wait_until_accepted(server.address)).await.unwrap();
}

#[tokio::test]
async fn connections_above_the_limit_are_refused() {
    let limit = NonZeroUsize::new(2).unwrap();
    let server = start_server(ApiConfig { max_connections: limit, ..test_config() });
    let request = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(request).await.unwrap();
        let mut response = [0; 12];
        timeout(TEST_TIMEOUT, client.read_exact(&mut response)).await.unwrap().unwrap();
        open.push(client);
    }
    let mut response = String::new();
    let mut third = TcpStream::connect(server.address).await.unwrap();
    timeout(TEST_TIMEOUT, third.read_to_string(&mut response)).await.unwrap().unwrap();
    assert!(
        response.starts_with("HTTP/1.1 503") && response.contains("Service unavailable"),
        "{response}"
    );

    drop(open);
    timeout(TEST_TIMEOUT, wait_until_accepted(server.address)).await.unwrap();
}

#[tokio::test]
async fn header_timeout_does_not_limit_the_handler() {
    let short = non_zero(20);
    let limits = ApiConfig { header_timeout_ms: short, keep_alive_ms: short, ..test_config() };
    let server = start_server(ApiConfig { request_timeout_ms: non_zero(200), ..limits });
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /never HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut received = Vec::new();
    timeout(TEST_TIMEOUT, client.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn stopped_server_frees_its_port() {
    let mut server = start_server(test_config());
    drop(TcpStream::connect(server.address).await.unwrap());
    server.stop.cancel();
    timeout(TEST_TIMEOUT, server.task.join_next()).await.unwrap().unwrap().unwrap();
    assert!(Listener::bind(&server.address.into()).is_ok());
}

#[tokio::test]
async fn error_of_a_port_in_use_names_the_address() {
    let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let listen = first.address().to_string();
    let Err(error) = Listener::bind(&first.address().into()) else {
        panic!("two listeners on one port")
    };
    assert!(error.to_string().contains(&listen), "{error}");
}
