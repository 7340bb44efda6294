//! What a client's connection carries, how long it is kept, and how it ends.

use std::num::NonZeroUsize;

use serde_json::json;
use service_kit::auth::{Access, KeyRing};
use service_kit::http::{ApiConfig, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{ENDLESS, LONG, PATIENCE, config, guarded, nonzero};

/// A running listener; dropping it ends it.
struct Served {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinSet<()>,
}

fn serve(config: ApiConfig) -> Served {
    serve_to(config, Access::Open)
}

fn serve_to(config: ApiConfig, access: Access) -> Served {
    let listener = Listener::bind(&config.listen).unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let mut task = JoinSet::new();
    let stopped = stop.clone();
    task.spawn(async move {
        let router = guarded(&config, access);
        listener.serve(router, &config, stopped, PATIENCE).await.unwrap();
    });
    Served { address, stop, task }
}

#[tokio::test]
async fn client_that_does_not_finish_its_request_head_is_let_go() {
    let served = serve(ApiConfig { header_timeout_ms: nonzero(50), ..config() });
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(!received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn client_that_sends_nothing_is_let_go() {
    let served = serve(ApiConfig { header_timeout_ms: nonzero(50), ..config() });
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.is_empty());
}

/// A connection whose first request has been answered.
async fn connection_after_one_request(served: &Served) -> TcpStream {
    let mut client = TcpStream::connect(served.address).await.unwrap();
    assert!(is_served_again(&mut client).await);
    client
}

/// Whether a request is answered on this connection, and not met by its end.
async fn is_served_again(client: &mut TcpStream) -> bool {
    // The answer's body is the last that comes.
    let (mut said, mut byte) = (Vec::new(), [0]);
    let asked = client.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok();
    while asked && !said.ends_with(b"\r\n\r\nok") {
        match timeout(PATIENCE, client.read(&mut byte)).await.unwrap() {
            Ok(1) => said.extend(byte),
            Ok(_) | Err(_) => return false,
        }
    }
    asked
}

#[tokio::test]
async fn idle_connection_is_kept_longer_than_a_head_may_take() {
    let served = serve(ApiConfig { header_timeout_ms: nonzero(50), ..config() });
    let mut kept = connection_after_one_request(&served).await;
    // This one is younger, and gone after the time that a head may take.
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    assert!(is_served_again(&mut kept).await);
}

#[tokio::test]
async fn idle_connection_is_closed_after_its_keep_alive() {
    let served = serve(ApiConfig { keep_alive_ms: nonzero(50), ..config() });
    let mut idle = connection_after_one_request(&served).await;
    let mut received = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.is_empty(), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn client_that_does_not_finish_a_later_head_is_let_go() {
    let served = serve(ApiConfig { header_timeout_ms: nonzero(50), ..config() });
    let mut slow = connection_after_one_request(&served).await;
    slow.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(!received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn client_that_says_that_it_has_sent_all_is_still_answered() {
    let served = serve(config());
    let requests = [
        "GET /ok HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{}",
    ];
    for request in requests {
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut said = String::new();
        timeout(PATIENCE, client.read_to_string(&mut said)).await.unwrap().unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
    }
}

#[tokio::test]
async fn client_that_closes_halfway_through_a_head_or_a_body_holds_nobody_up() {
    let served = serve(config());
    let halves = [
        "GET /ok HTTP/1.1\r\nHo",
        "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: 20\r\n\r\n{",
    ];
    for half in halves {
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(half.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn request_in_progress_when_the_listener_stops_is_answered_on_a_connection_that_closes() {
    let served = serve(config());
    let mut client = TcpStream::connect(served.address).await.unwrap();
    let slow = b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(slow).await.unwrap();
    // Its handler waits for the body now.
    let mut goes_on = [0; 25];
    timeout(PATIENCE, client.read_exact(&mut goes_on)).await.unwrap().unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    served.stop.cancel();
    // The stop has been seen once nobody listens any more.
    while TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    client.write_all(b"{}").await.unwrap();
    let mut said = String::new();
    timeout(PATIENCE, client.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK") && said.contains("connection: close"), "{said}");
}

/// Asks until a connection is not turned away.
async fn until_served(address: std::net::SocketAddr) {
    loop {
        let mut client = TcpStream::connect(address).await.unwrap();
        // Where it is turned away, it may be so while it still asks.
        let mut said = [0; 12];
        let asked = client.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok();
        if asked && client.read_exact(&mut said).await.is_ok() && said.ends_with(b"200") {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// What a listener says to these bytes, until it closes the connection.
async fn said_to(served: &Served, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut said)).await.unwrap().unwrap();
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn what_is_no_request_is_told_so_in_our_body() {
    let served = serve(config());
    let many = "a: b\r\n".repeat(10_000);
    let cases = [
        ("\u{1}\u{2}\r\n\r\n".to_owned(), 400, "Bad Request"),
        ("GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n".to_owned(), 400, "Bad Request"),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431, "Request Header Fields Too Large"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "u".repeat(70_000)), 414, "URI Too Long"),
    ];
    for (sent, status, text) in cases {
        let said = said_to(&served, sent.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, json!({"message": text}).to_string(), "{said}");
        assert!(head.contains("content-type: application/json") && head.contains("nosniff"));
    }
}

#[tokio::test]
async fn half_sent_body_is_the_clients_failure_and_holds_nobody_up() {
    let served = serve(ApiConfig { body_timeout_ms: nonzero(300), ..config() });
    let half = b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
    let mut slow = JoinSet::new();
    // More than are handled at once.
    for _ in 0..4 {
        let address = served.address;
        slow.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(half).await.unwrap();
            let mut said = Vec::new();
            timeout(PATIENCE, client.read_to_end(&mut said)).await.unwrap().unwrap();
            String::from_utf8(said).unwrap()
        });
    }
    let quick = said_to(&served, b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(quick.starts_with("HTTP/1.1 200"), "{quick}");
    while let Some(said) = slow.join_next().await {
        let said = said.unwrap();
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
        assert!(said.ends_with(r#"{"message":"Request Timeout"}"#), "{said}");
    }
}

#[tokio::test]
async fn connection_goes_on_after_a_body_that_nobody_wanted() {
    let nobody_knows_the_keys = Access::Keys(KeyRing::new(watch::channel(None).1));
    for (access, path, status) in
        [(Access::Open, "/nothing", 404), (nobody_knows_the_keys, "/json", 503)]
    {
        let served = serve_to(config(), access);
        let mut client = TcpStream::connect(served.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // By the time that this is answered, so could the head have been, without its body.
        said_to(&served, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let next = b"{} GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(next).await.unwrap();
        let mut said = String::new();
        timeout(PATIENCE, client.read_to_string(&mut said)).await.unwrap().unwrap();
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
}

#[tokio::test]
async fn answer_that_ends_the_connection_says_so() {
    let served = serve(config());
    let long = format!("41\r\n{LONG}\r\n0\r\n\r\n");
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
        let said = said_to(&served, request.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {said}");
        assert!(said.contains("\r\nconnection: close\r\n"), "{request}: {said}");
    }
}

#[tokio::test]
async fn pipelined_request_with_two_framings_is_refused() {
    let served = serve(config());
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
            // In one segment, so that they come with one read.
            let said = said_to(&served, format!("{first}{unclear}{smuggled}").as_bytes()).await;
            let (_, refused) = said.rsplit_once("HTTP/1.1 ").unwrap();
            assert!(said.starts_with("HTTP/1.1 200"), "{line}: {said}");
            assert!(refused.starts_with("400 Bad Request"), "{line}: {said}");
            assert_eq!(said.matches("HTTP/1.1 ").count(), 2, "{line}: {said}");
        }
    }
}

#[tokio::test]
async fn client_that_does_not_read_its_answer_is_let_go() {
    let one = NonZeroUsize::MIN;
    let limits = ApiConfig { max_connections: one, write_timeout_ms: nonzero(100), ..config() };
    let served = serve(limits);
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    silent.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    timeout(PATIENCE, silent.read_exact(&mut begun)).await.unwrap().unwrap();
    // The answer's own place is free again, and the connection's.
    drop(timeout(PATIENCE, ENDLESS.acquire()).await.unwrap().unwrap());
    timeout(PATIENCE, until_served(served.address)).await.unwrap();
}

#[tokio::test]
async fn more_connections_than_the_limit_are_turned_away() {
    let limit = NonZeroUsize::new(2).unwrap();
    let served = serve(ApiConfig { max_connections: limit, ..config() });
    let request = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(request).await.unwrap();
        let mut said = [0; 12];
        timeout(PATIENCE, client.read_exact(&mut said)).await.unwrap().unwrap();
        open.push(client);
    }
    let mut said = String::new();
    let mut third = TcpStream::connect(served.address).await.unwrap();
    timeout(PATIENCE, third.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("Service unavailable"), "{said}");

    drop(open);
    timeout(PATIENCE, until_served(served.address)).await.unwrap();
}

#[tokio::test]
async fn answer_may_take_longer_than_the_request_head() {
    let short = nonzero(20);
    let limits = ApiConfig { header_timeout_ms: short, keep_alive_ms: short, ..config() };
    let served = serve(ApiConfig { request_timeout_ms: nonzero(200), ..limits });
    let mut client = TcpStream::connect(served.address).await.unwrap();
    let request = b"GET /never HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn listener_stops_when_told_to_and_its_port_is_free_again() {
    let mut served = serve(config());
    drop(TcpStream::connect(served.address).await.unwrap());
    served.stop.cancel();
    timeout(PATIENCE, served.task.join_next()).await.unwrap().unwrap().unwrap();
    assert!(Listener::bind(&served.address.into()).is_ok());
}

#[tokio::test]
async fn port_that_is_taken_is_named() {
    let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let listen = first.address().to_string();
    let Err(error) = Listener::bind(&first.address().into()) else {
        panic!("two listeners on one port")
    };
    assert!(error.to_string().contains(&listen), "{error}");
}
