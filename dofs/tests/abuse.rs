//! Hostile requests to the real binary: each is rejected with a documented body, without a server error,
//! a hang, or internal details.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::api::{Answer, Api, valid_order};
use testkit::system::System;

/// Maximum time of a response. Reached only if something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

fn start_system(environment: &[(&str, &str)]) -> (System, SocketAddr) {
    let mut system = System::start(env!("CARGO_BIN_EXE_dofs"), environment);
    let address = system.process.http_address();
    (system, address)
}

/// Sends these bytes and reads until the server closes the connection, at most [`PATIENCE`] long.
fn send_raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may close the connection before it has read everything.
    let _closed_early = stream.write_all(bytes).is_err();
    let mut said = Vec::new();
    let _reset = stream.read_to_end(&mut said).is_err();
    String::from_utf8(said).unwrap()
}

/// Asserts a status of 400 to 499, one of the two documented bodies, and no internal details.
#[track_caller]
fn assert_rejected(what: &str, status: u16, body: &str) {
    assert!((400..500).contains(&status), "{what}: {status} {body}");
    let json: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{what}: {body}"));
    let texts = ["message", "error"].map(|name| json[name].as_str());
    assert!(texts.iter().flatten().count() == 1, "{what}: {body}");
    for inside in ["panicked", "src/", "sqlite", "axum", "hyper", "serde", "rusqlite", "select "] {
        assert!(!body.to_lowercase().contains(inside), "{what}: {body}");
    }
}

#[track_caller]
fn assert_raw_rejected(what: &str, said: &str) {
    let status = said.get(9..12).and_then(|digits| digits.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{what}: no answer: `{said}`"));
    let (_, body) = said.split_once("\r\n\r\n").unwrap();
    assert_rejected(what, status, body);
}

fn post_order(api: &Api, body: Vec<u8>) -> Answer {
    Api::send(api.request("POST", "/order").body(body))
}

/// Pseudo-random numbers with a fixed seed.
struct Numbers(u64);

impl Numbers {
    fn next_below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[test]
fn bit_flipped_and_truncated_bodies_are_rejected() {
    let (system, _) = start_system(&[]);
    let good = valid_order().to_string().into_bytes();
    let mut numbers = Numbers(7);
    for _ in 0..300 {
        let mut body = good.clone();
        for _ in 0..=numbers.next_below(3) {
            let place = numbers.next_below(body.len());
            body[place] ^= 1 << numbers.next_below(8);
        }
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answer = post_order(&system.api, body);
        // A flip within a product id still gives a valid order.
        if answer.status != 202 {
            assert_rejected(&shown, answer.status, &answer.text);
        }
    }
    for length in 0..good.len() {
        let answer = post_order(&system.api, good[..length].to_vec());
        assert_rejected("cut off", answer.status, &answer.text);
    }
}

#[test]
fn invalid_numbers_nesting_and_encodings_are_rejected() {
    let (system, _) = start_system(&[]);
    let with = |quantity: &str| {
        format!(
            r#"{{"customer_id":"cust-1","items":[{{"product_id":"p","quantity":{quantity}}}]}}"#
        )
    };
    let utf16: Vec<u8> =
        valid_order().to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut cases: Vec<Vec<u8>> = [
        "9223372036854775808",
        "18446744073709551616",
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "-0",
        "0x10",
        "01",
        "1.",
        "+1",
        "\"1\"",
        "true",
        "1e-1",
        "[1]",
    ]
    .map(|target| with(target).into_bytes())
    .to_vec();
    cases.extend([
        "[".repeat(100_000).into_bytes(),
        "{\"a\":".repeat(40_000).into_bytes(),
        br#"{"customer_id":"cust-1","customer_id":"cust-2","items":[{"product_id":"p","quantity":1}]}"#.to_vec(),
        br#"{"customer_id":"cust-1","items":[{"product_id":"p","quantity":1,"quantity":2}]}"#.to_vec(),
        br#"{"customer_id":"\ud800","items":[{"product_id":"p","quantity":1}]}"#.to_vec(),
        br#"{"customer_id":"a\u0000bc","items":[{"product_id":"p","quantity":1}]}"#.to_vec(),
        b"{\"customer_id\":\"a\0bc\",\"items\":[{\"product_id\":\"p\",\"quantity\":1}]}".to_vec(),
        [b"\xef\xbb\xbf".to_vec(), valid_order().to_string().into_bytes()].concat(),
        utf16,
        b"\xff\xfe\xfd".to_vec(),
        b"customer_id=cust-1&items=1".to_vec(),
    ]);
    for body in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(90)]).into_owned();
        let answer = post_order(&system.api, body);
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
        assert_rejected(&shown, answer.status, &answer.text);
    }
}

/// Returns the bytes of a request that places an order.
fn raw_post(headers: &str, body: &str) -> String {
    format!("POST /order HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n\r\n{body}")
}

#[test]
fn smuggling_and_oversized_requests_are_rejected() {
    let (system, address) = start_system(&[]);
    let body = valid_order().to_string();
    let n = body.len();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let chunk = "a".repeat(0x4_0001);
    let cases = [
        ("two lengths", raw_post(&format!("Content-Length: {n}\r\nContent-Length: 0"), &body)),
        ("a length that is none", raw_post("Content-Length: -1", &body)),
        ("a length with a sign", raw_post(&format!("Content-Length: +{n}"), &body)),
        ("a length and more", raw_post(&format!("Content-Length: {n}, 0"), &body)),
        ("an unknown coding", raw_post("Transfer-Encoding: xchunked", &body)),
        ("chunked, not last", raw_post("Transfer-Encoding: chunked, gzip", &body)),
        ("a folded header", raw_post("X-A: b\r\n c", &body)),
        ("a space before the colon", raw_post("Content-Length : 5", &body)),
        ("a control character", raw_post("X-A: b\u{1}c", &body)),
        ("a broken chunk", raw_post("Transfer-Encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n")),
        (
            "too long in chunks",
            raw_post("Transfer-Encoding: chunked", &format!("40001\r\n{chunk}\r\n0\r\n\r\n")),
        ),
        ("too long", raw_post("Content-Length: 262145", &chunk)),
        ("too long by its head", raw_post("Content-Length: 99999999999", "")),
        (
            "two types",
            raw_post(
                &format!(
                    "Content-Type: application/json\r\nContent-Type: text/xml\r\nContent-Length: {n}"
                ),
                &body,
            ),
        ),
        (
            "a packed body",
            raw_post(&format!("Content-Encoding: gzip\r\nContent-Length: {n}"), &body),
        ),
        ("10,000 headers", raw_post(&"X-A: b\r\n".repeat(10_000), "")),
        ("a long address", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "u".repeat(65_536))),
        ("a long query", get(&format!("/v1/orders?cursor={}", "u".repeat(60_000)))),
        ("no host", "GET /v1/orders HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned()),
        ("two hosts", raw_post(&format!("Host: y\r\nContent-Length: {n}"), &body)),
        ("a query that is no text", get("/v1/orders?customer_id=%FF")),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned()),
        ("no version", "GET /\r\n\r\n".to_owned()),
        ("TRACE", "TRACE /v1/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()),
        (
            "CONNECT",
            "CONNECT internal:80 HTTP/1.1\r\nHost: internal:80\r\nConnection: close\r\n\r\n"
                .to_owned(),
        ),
    ];
    for (what, sent) in cases {
        assert_raw_rejected(what, &send_raw(address, sent.as_bytes()));
    }
    let http2 = send_raw(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(http2, "", "a connection of another protocol is closed without a response");
    assert_eq!(system.api.place(&valid_order()).status, 202, "the server still accepts orders");
}

#[test]
fn ambiguous_requests_are_rejected() {
    let (system, address) = start_system(&[]);
    let body = valid_order().to_string();
    let n = body.len();
    let cases = [
        (
            "two equal lengths",
            raw_post(&format!("Content-Length: {n}\r\nContent-Length: {n}"), &body),
        ),
        (
            "a length and chunks",
            raw_post(&format!("Content-Length: {n}\r\nTransfer-Encoding: chunked"), &body),
        ),
        (
            "chunks and a length",
            raw_post("Transfer-Encoding: chunked\r\nContent-Length: 4", "2\r\n{}\r\n0\r\n\r\n"),
        ),
        ("chunks of chunks", raw_post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n")),
        ("packed chunks", raw_post("Transfer-Encoding: gzip, chunked", "2\r\n{}\r\n0\r\n\r\n")),
        ("a length beyond all", raw_post("Content-Length: 18446744073709551615", &body)),
        ("a host that is none", raw_post("", "").replace("Host: x", "Host: a b/c@")),
        ("a host with a user", raw_post("", "").replace("Host: x", "Host: me@x")),
    ];
    for (what, sent) in cases {
        assert_raw_rejected(what, &send_raw(address, sent.as_bytes()));
    }
    // Both a length and chunks: the server must not read a second request from the body.
    let inner = "0\r\n\r\nGET /v1/orders HTTP/1.1\r\nHost: x\r\n\r\n";
    let both =
        raw_post(&format!("Transfer-Encoding: chunked\r\nContent-Length: {}", inner.len()), inner);
    let said = send_raw(address, both.as_bytes());
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
    assert_raw_rejected("a length and chunks", &said);
    assert_eq!(system.api.get("/v1/orders").json()["items"].as_array().unwrap().len(), 0);
}

#[test]
fn slow_clients_do_not_block_other_clients() {
    let environment =
        [("DOFS__API__HEADER_TIMEOUT_MS", "3000"), ("DOFS__API__BODY_TIMEOUT_MS", "3000")];
    let (system, address) = start_system(&environment);
    let starts = [
        "POST /order HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "POST /order HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"customer",
    ];
    let mut slow: Vec<TcpStream> = (0..500)
        .map(|index| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(starts[index % 2].as_bytes()).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(system.api.place(&valid_order()).status, 202);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    // The server closes all slow connections.
    for (index, stream) in slow.iter_mut().enumerate() {
        let mut said = Vec::new();
        let _reset = stream.read_to_end(&mut said).is_err();
        let said = String::from_utf8(said).unwrap();
        if index % 2 == 1 {
            assert!(said.starts_with("HTTP/1.1 408"), "{said}");
        }
    }
}

#[test]
fn injected_parameters_are_treated_as_plain_values() {
    let (system, _) = start_system(&[]);
    let id = system.api.place_valid_order();
    system.api.wait_until_projected(&id);
    let nasty = [
        "' or '1'='1",
        "'; drop table orders; --",
        "%",
        "_",
        "*",
        "$(id)",
        "../../etc/passwd",
        "\u{1b}[31m",
        "a\r\nx-injected: 1",
        "\0",
        "{\"$gt\":\"\"}",
        "<script>",
        "\u{202e}",
        "-1",
        "1e9",
        "99999999999999999999",
    ];
    for value in nasty {
        let get = |path: &str, name: &str| {
            Api::send(system.api.request("GET", path).query(&[(name, value)]))
        };
        // These accept any value: the list is empty.
        for (path, name) in [("/v1/orders", "customer_id"), ("/v1/failed-orders", "code")] {
            let answer = get(path, name);
            assert_eq!(
                (answer.status, answer.json()["items"].clone()),
                (200, json!([])),
                "{name}={value:?}"
            );
            assert!(answer.header("x-injected").is_none());
        }
        for name in ["status", "from", "to", "limit", "cursor"] {
            let answer = get("/v1/orders", name);
            assert_rejected(&format!("{name}={value:?}"), answer.status, &answer.text);
        }
        for name in ["stage", "from", "limit", "cursor", "include_resolved"] {
            let answer = get("/v1/failed-orders", name);
            assert_rejected(&format!("{name}={value:?}"), answer.status, &answer.text);
        }
        let encoded: String =
            value.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
        for path in [format!("/v1/orders/{encoded}"), format!("/v1/orders/{encoded}/history")] {
            let answer = system.api.get(&path);
            assert_rejected(&path, answer.status, &answer.text);
        }
    }
    assert_eq!(system.api.get(&format!("/v1/orders/{id}")).status, 200, "the tables still exist");
}

#[test]
fn forged_cursor_is_rejected() {
    let (system, _) = start_system(&[]);
    for _ in 0..3 {
        let id = system.api.place_valid_order();
        system.api.wait_until_projected(&id);
    }
    let cursor =
        system.api.get("/v1/orders?limit=1").json()["next_cursor"].as_str().unwrap().to_owned();
    let forged = [
        format!("{cursor}="),
        cursor[1..].to_owned(),
        format!("{cursor}{cursor}"),
        cursor.to_uppercase(),
        "e30".to_owned(),
        "bnVsbA".to_owned(),
        "A".repeat(50_000),
    ];
    for cursor in forged {
        let answer = system.api.get(&format!("/v1/orders?cursor={cursor}"));
        assert_rejected(&cursor[..cursor.len().min(60)], answer.status, &answer.text);
    }
    let answer = system.api.get(&format!("/v1/failed-orders?cursor={cursor}"));
    assert_rejected("another list's", answer.status, &answer.text);
}

#[test]
fn malformed_headers_are_rejected_or_ignored() {
    let (system, _) = start_system(&[]);
    let send = |name: &str, value: &[u8]| {
        Api::send(system.api.request("POST", "/order").header(name, value).json(&valid_order()))
    };
    for key in [&b""[..], b"\"", b"\"\"", b"\xe9", b"a\tb", &[b'k'; 256]] {
        let answer = send("idempotency-key", key);
        assert_rejected(&String::from_utf8_lossy(key), answer.status, &answer.text);
    }
    assert_eq!(send("idempotency-key", &[b'k'; 255]).status, 202);
    // A wait is limited, and the other headers have no effect.
    let cases: [(&str, &[u8]); 7] = [
        ("prefer", b"wait=1e9"),
        ("prefer", b"wait=-1"),
        ("traceparent", b"00-zz-\xff"),
        ("x-request-id", b"a b\xff"),
        ("authorization", b"Bearer eyJhbGciOiJub25lIn0.e30."),
        ("x-forwarded-for", b"127.0.0.1, ' or 1"),
        ("cookie", b"admin=true"),
    ];
    for (name, value) in cases {
        let started = Instant::now();
        let answer = send(name, value);
        assert!([200, 202].contains(&answer.status), "{name}: {answer:?}");
        assert!(started.elapsed() < PATIENCE, "{name}");
        let id = answer.header("x-request-id").unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{id}");
    }
}

#[test]
fn malformed_credentials_are_unauthorized() {
    let (system, _) = start_system(&[("DOFS__AUTH__MODE", "api_key")]);
    testkit::wait::until("the keys are loaded", || {
        (system.api.get("/v1/orders").status == 401).then_some(())
    });
    let long = format!("Bearer dofs_dev_{}_x", "a".repeat(20_000));
    let nonsense: [&[u8]; 12] = [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
        b"bearer dofs_dev_x_y",
        b"Bearer dofs_dev__",
        b"Bearer dofs_production_' or 1=1_x",
        b"Basic YWRtaW46Y2hhbmdlaXQ=",
        b"Negotiate x",
        b"\xff\xfe",
        b"Bearer \xc3\xa9",
        long.as_bytes(),
    ];
    for value in nonsense {
        let request = system.api.request("GET", "/v1/orders").header("authorization", value);
        let answer = Api::send(request);
        assert_eq!((answer.status, answer.json()), (401, json!({"message": "Unauthorized"})));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
}

#[test]
fn server_controlled_members_in_the_body_are_ignored() {
    let (system, _) = start_system(&[("DOFS__FULFILLMENT__SUCCESS_RATE", "0.0")]);
    let forged = "00000000-0000-4000-8000-000000000000";
    let mut body = valid_order();
    let ours = json!({"order_id": forged, "status": "FULFILLED", "stage": "none", "attempt": 9,
        "revision": 99, "tenant": "other", "reference": "free", "received_at": "1999-01-01T00:00:00Z"});
    body.as_object_mut().unwrap().extend(ours.as_object().unwrap().clone());
    let answer = system.api.place(&body);
    let id = answer.json()["order_id"].as_str().unwrap().to_owned();
    assert_ne!(id, forged);
    let order = system.api.wait_until_ended(&id);
    assert_eq!((&order["status"], &order["attempt"]), (&json!("FAILED"), &json!(1)));
    assert_eq!(order["reference"], Value::Null);
    assert!(!order["received_at"].as_str().unwrap().starts_with("1999"));
    assert_eq!(system.api.get(&format!("/v1/orders/{forged}")).status, 404);
}

#[test]
fn customer_ids_are_never_logged() {
    let customer = "cust-very-secret-7";
    let ours = "info,kurrentdb=off,dofs=debug,command_api=debug,projectors=debug,event_log=debug,\
                event_node=debug,fulfillment_worker=debug,service_kit=debug";
    let (system, _) = start_system(&[("RUST_LOG", ours), ("DOFS__API__ACCESS_LOG", "true")]);
    let body = json!({"customer_id": customer, "items": [{"product_id": "p", "quantity": 1}]});
    let id = system.api.place(&body).json()["order_id"].as_str().unwrap().to_owned();
    system.api.wait_until_projected(&id);
    system
        .api
        .place(&json!({"customer_id": customer, "items": [{"product_id": "p", "quantity": 101}]}));
    system.api.place(&json!({"customer_id": customer, "items": customer}));
    system.api.get(&format!("/v1/orders?customer_id={customer}"));
    let log = system.process.log_lines();
    assert!(log.iter().any(|line| line["message"] == "Request answered"), "{log:?}");
    assert!(log.len() < 200, "the log is complete");
    for line in log {
        assert!(!line.to_string().contains(customer), "{line}");
    }
}
