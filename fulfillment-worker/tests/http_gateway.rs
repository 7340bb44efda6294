//! The HTTP gateway against a warehouse over real HTTP: requests, and the meaning of responses.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::net::TcpListener;
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{FailureClass, Item};
use fulfillment_worker::{
    ConfigError, Fulfillment, FulfillmentConfig, Gateway, GatewayError, GatewayKind, GatewayUrl,
    HttpGateway, Outcome,
};
use serde_json::json;
use testkit::store::clock;
use testkit::wait;
use testkit::warehouse::{Behaviour, Warehouse, closing_response};
use tokio::time::timeout;
use uuid::Uuid;

fn config(url: &str) -> FulfillmentConfig {
    FulfillmentConfig {
        gateway: GatewayKind::Http,
        allow_simulated: false,
        success_rate: 1.0,
        error_rate: 0.0,
        latency_ms: 0,
        seed: 1,
        url: url.parse().unwrap(),
        breaker_failures: 10,
        breaker_open_ms: 5_000,
        timeout_ms: 20_000,
        max_retries: 3,
        backoff_ms: 1,
        backoff_max_ms: 5,
        concurrency: 16,
        message_timeout_ms: 30_000,
        stale_after_ms: 600_000,
    }
}

fn gateway(url: &str) -> HttpGateway {
    HttpGateway::new(&config(url), clock()).unwrap()
}

/// Makes a gateway with a short time-out.
fn gateway_with_short_timeout(url: &str) -> HttpGateway {
    HttpGateway::new(&FulfillmentConfig { timeout_ms: 50, ..config(url) }, clock()).unwrap()
}

fn fulfillment(order: u128) -> Fulfillment {
    Fulfillment {
        order_id: OrderId(Uuid::from_u128(order)),
        attempt: 2,
        delivery: 3,
        customer_id: "cust-1".to_owned(),
        items: vec![Item { product_id: "prod-1".to_owned(), quantity: 4 }],
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    }
}

async fn fulfill(gateway: &HttpGateway) -> Result<Outcome, GatewayError> {
    timeout(wait::PATIENCE, gateway.fulfill(&fulfillment(1))).await.unwrap()
}

/// Returns the text of a transient failure.
async fn transient_error(gateway: &HttpGateway) -> String {
    let error = fulfill(gateway).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Transient);
    let excerpt = error.excerpt.map(|text| format!(": {text}")).unwrap_or_default();
    format!("{}{excerpt}", error.error)
}

fn fulfilled(reference: &str) -> Outcome {
    Outcome::Fulfilled { reference: reference.to_owned() }
}

#[tokio::test]
async fn order_is_posted_with_key_timeout_and_trace() {
    let warehouse = Warehouse::start();
    assert_eq!(fulfill(&gateway(&warehouse.url())).await, Ok(fulfilled("wh-1")));
    let call = warehouse.calls().pop().unwrap();
    let order_id = fulfillment(1).order_id;
    assert_eq!(call.key, format!("{order_id}:2"));
    let body = json!({
        "order_id": order_id.to_string(), "attempt": 2, "delivery": 3, "customer_id": "cust-1",
        "items": [{"product_id": "prod-1", "quantity": 4}],
    });
    assert_eq!(call.body, body);
    let traceparent = fulfillment(1).traceparent.unwrap();
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("x-envoy-expected-rq-timeout-ms", "20000"),
        ("traceparent", &traceparent),
        ("user-agent", concat!("dofs/", env!("CARGO_PKG_VERSION"))),
    ];
    for (name, value) in headers {
        assert_eq!(call.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
async fn secrets_of_the_url_are_sent_and_never_shown() {
    let warehouse = Warehouse::start();
    let url = warehouse.url().replace("http://", "http://dofs:s3cret@") + "?key=s3cret";
    let gateway = gateway(&url);
    assert_eq!(fulfill(&gateway).await, Ok(fulfilled("wh-1")));
    let call = warehouse.calls().pop().unwrap();
    assert_eq!(call.headers["authorization"], "Basic ZG9mczpzM2NyZXQ=");

    warehouse.set_default(Behaviour::Drop);
    let dropped = transient_error(&gateway).await;
    warehouse.set_default(Behaviour::Fail(401));
    let unauthorized = transient_error(&gateway).await;
    for error in [dropped, unauthorized] {
        assert!(!error.contains(&warehouse.url()) && !error.contains("s3cret"), "{error}");
    }
    assert!(!format!("{:?}", config(&url)).contains("s3cret"));
}

#[tokio::test]
async fn trace_that_is_no_valid_header_is_omitted() {
    let warehouse = Warehouse::start();
    let traceparent = Some("00-\r\nx-evil: 1".to_owned());
    let fulfillment = Fulfillment { traceparent, ..fulfillment(1) };
    let outcome = gateway(&warehouse.url()).fulfill(&fulfillment).await;
    assert_eq!(outcome, Ok(fulfilled("wh-1")));
    assert!(!warehouse.calls()[0].headers.contains_key("traceparent"));
}

#[tokio::test]
async fn refusal_is_final_with_code_and_reason() {
    let warehouse = Warehouse::start();
    let (code, reason) = ("no_stock".to_owned(), "none left".to_owned());
    warehouse.set_default(Behaviour::Refuse { code: code.clone(), reason: reason.clone() });
    let outcome = fulfill(&gateway(&warehouse.url())).await;
    assert_eq!(outcome, Ok(Outcome::Refused { code, reason }));
}

#[tokio::test]
async fn other_statuses_are_transient_failures() {
    let warehouse = Warehouse::start();
    let gateway = gateway(&warehouse.url());
    for status in [400, 401, 403, 404, 405, 409, 410, 429, 500, 502, 503, 504] {
        warehouse.set_default(Behaviour::Fail(status));
        let error = transient_error(&gateway).await;
        assert!(error.starts_with(&format!("gateway answered {status} ")), "{error}");
        assert!(!error.contains(&warehouse.url()), "the URL is hidden: {error}");
    }
    assert_eq!(warehouse.fulfilled_orders().len(), 0);
}

#[tokio::test]
async fn busy_gateway_may_ask_for_a_wait() {
    let warehouse = Warehouse::start();
    let busy = closing_response(503, &[("Retry-After", "7")], "busy");
    warehouse.set_default(Behaviour::Say(busy));
    let error = fulfill(&gateway(&warehouse.url())).await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    assert!(error.error.ends_with("answered 503 Service Unavailable"), "{error}");
    assert_eq!(error.excerpt.as_deref(), Some("busy"));
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let (warehouse, other) = (Warehouse::start(), Warehouse::start());
    for status in [301, 302, 303, 307, 308] {
        let redirect = closing_response(status, &[("Location", &other.url())], "");
        warehouse.set_default(Behaviour::Say(redirect));
        let error = transient_error(&gateway(&warehouse.url())).await;
        assert!(error.ends_with("a redirect, which is not followed"), "{error}");
    }
    assert_eq!(other.calls().len(), 0);
}

#[tokio::test]
async fn responses_without_a_clear_outcome_are_failures() {
    let warehouse = Warehouse::start();
    let gateway = gateway(&warehouse.url());
    let cut_off = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"reference\": \"wh\"}".to_vec();
    let huge = format!("{{\"reference\": \"wh\", \"more\": \"{}\"}}", "x".repeat(1 << 20));
    let answers = [
        (
            closing_response(200, &[], "<html>done</html>"),
            "without a `reference`: <html>done</html>",
        ),
        (closing_response(204, &[], ""), "answered 204 No Content, but without a `reference`"),
        (closing_response(200, &[], &huge), "(its body is longer than 65536 bytes)"),
        (cut_off, "(the rest did not arrive: "),
        (b"what?\r\n\r\n".to_vec(), "invalid HTTP"),
        (Vec::new(), "no answer from the gateway: "),
    ];
    for (bytes, expected) in answers {
        warehouse.set_default(Behaviour::WorkAndSay(bytes));
        let error = transient_error(&gateway).await;
        assert!(error.contains(expected), "{error}");
        assert!(error.len() < 500, "{error}");
    }
    warehouse.set_default(Behaviour::Fulfil);
    assert_eq!(
        fulfill(&gateway).await,
        Ok(fulfilled("wh-1")),
        "the last response has the reference"
    );
}

#[tokio::test]
async fn second_response_to_a_request_is_not_used_for_the_next() {
    let warehouse = Warehouse::start();
    let gateway = gateway(&warehouse.url());
    let one = |reference: &str| {
        let body = json!({"reference": reference}).to_string();
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        text.into_bytes()
    };
    warehouse.set_for_order(
        fulfillment(1).order_id,
        Behaviour::WorkAndSay([one("first"), one("second")].concat()),
    );
    assert_eq!(fulfill(&gateway).await, Ok(fulfilled("first")));
    assert_eq!(gateway.fulfill(&fulfillment(2)).await, Ok(fulfilled("wh-2")));
}

#[tokio::test]
async fn repeated_call_after_a_lost_response_has_one_effect() {
    let warehouse = Warehouse::start();
    let gateway = gateway(&warehouse.url());
    warehouse.set_for_next_calls(2, &Behaviour::WorkAndDrop);
    for _ in 0..2 {
        let error = transient_error(&gateway).await;
        assert!(error.contains("connection closed"), "{error}");
    }
    assert_eq!(fulfill(&gateway).await, Ok(fulfilled("wh-1")));
    let key = fulfillment(1).idempotency_key();
    assert_eq!((warehouse.calls().len(), warehouse.count_effects(&key)), (3, 1));
}

#[tokio::test]
async fn call_without_a_response_times_out() {
    let warehouse = Warehouse::start();
    let gateway = gateway_with_short_timeout(&warehouse.url());
    warehouse.set_default(Behaviour::Hang);
    let hanging = transient_error(&gateway).await;
    assert!(hanging.ends_with("did not answer within 50 ms"), "{hanging}");

    warehouse.set_default(Behaviour::Slow(Duration::from_millis(200)));
    let slow = transient_error(&gateway).await;
    assert!(slow.ends_with("did not answer within 50 ms"), "{slow}");
    let key = fulfillment(1).idempotency_key();
    wait::until_async("the warehouse has fulfilled the order", async || {
        (warehouse.count_effects(&key) == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unreachable_gateway_is_a_transient_failure() {
    let mut warehouse = Warehouse::start();
    let gateway = gateway(&warehouse.url());
    assert_eq!(fulfill(&gateway).await, Ok(fulfilled("wh-1")));
    warehouse.stop();
    // The client may first try the connection that the warehouse has closed.
    let refused = wait::until_async("connections are refused", async || {
        Some(transient_error(&gateway).await).filter(|it| it.contains("Connection refused"))
    })
    .await;
    assert!(refused.starts_with("no answer from the gateway: "), "{refused}");
    warehouse.start_again();
    assert_eq!(fulfill(&gateway).await, Ok(fulfilled("wh-1")));
}

#[tokio::test]
async fn https_url_uses_tls() {
    let warehouse = Warehouse::start();
    let gateway = gateway(&warehouse.url().replace("http://", "https://"));
    let error = transient_error(&gateway).await;
    assert!(error.contains("tls handshake"), "{error}");
}

#[tokio::test]
async fn many_orders_are_fulfilled_concurrently() {
    let warehouse = Warehouse::start();
    let gateway = gateway(&warehouse.url());
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..64_u128 {
        let gateway = gateway.clone();
        // Each order is sent twice.
        calls.spawn(async move { gateway.fulfill(&fulfillment(number / 2)).await });
    }
    for outcome in calls.join_all().await {
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    assert_eq!((warehouse.calls().len(), warehouse.fulfilled_orders().len()), (64, 32));
    assert!(warehouse.keys_with_more_than_one_effect().is_empty());
    assert!(warehouse.orders_with_more_than_one_effect().is_empty());
}

#[tokio::test]
async fn unknown_host_name_is_a_transient_failure() {
    let gateway = gateway("http://warehouse.invalid/orders");
    let error = transient_error(&gateway).await;
    assert!(error.starts_with("no answer from the gateway: ") && error.contains("dns"), "{error}");
    assert!(gateway.sends_in_the_clear());
}

#[test]
fn settings_without_url_or_breaker_limit_are_invalid() {
    let without = FulfillmentConfig { url: GatewayUrl::default(), ..config("") };
    assert_eq!(without.check(), Err(ConfigError::NoUrl));
    assert_eq!(HttpGateway::new(&without, clock()).unwrap_err(), ConfigError::NoUrl);
    let simulated = FulfillmentConfig { gateway: GatewayKind::Simulated, ..without };
    assert_eq!(simulated.check(), Ok(()));
    let never = FulfillmentConfig { breaker_failures: 0, ..config("http://localhost") };
    assert_eq!(never.check(), Err(ConfigError::BreakerFailures));
    assert_eq!(config("http://localhost").check(), Ok(()));
}

/// The server accepts connections and sends nothing, like a firewall.
#[tokio::test]
async fn silent_server_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = gateway_with_short_timeout(&format!("http://{}", silent.local_addr().unwrap()));
    assert!(transient_error(&gateway).await.ends_with("did not answer within 50 ms"));
}
