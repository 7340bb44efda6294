//! API keys: creation, tenants, scopes and revocation.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use serde_json::{Value, json};
use testkit::api::{Answer, Api, valid_order};
use testkit::command::{self, CommandOutput};
use testkit::stream_tool::StreamTool;
use testkit::system::System;
use testkit::wait::{self, PATIENCE};
use tokio::runtime::Runtime;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

/// A system that requires API keys.
struct Guarded {
    system: System,
    store: String,
}

impl Guarded {
    fn start() -> Self {
        let system = System::start(BINARY, &[("DOFS__AUTH__MODE", "api_key")]);
        let store = system.event_store().to_owned();
        Self { system, store }
    }

    fn dofs(&self, arguments: &[&str]) -> CommandOutput {
        command::run(BINARY, arguments, &[("DOFS__EVENT_STORE__URL", &self.store)])
    }

    /// Creates a key, waits until the API accepts it, and returns its id and token.
    fn create_key(&self, owner: &[&str], scopes: &str) -> (String, String) {
        let create = ["keys", "create", "--name", "test", "--json", "--scope", scopes];
        let created = self.dofs(&[&create, owner].concat()).json();
        let text = |member: &str| created[member].as_str().unwrap().to_owned();
        let (id, token) = (text("id"), text("token"));
        wait::until("the key is valid", || {
            let status = self.get("/v1/stats", &token).status;
            (![401, 503].contains(&status)).then_some(())
        });
        (id, token)
    }

    fn get(&self, path: &str, token: &str) -> Answer {
        Api::send(self.system.api.request("GET", path).bearer_auth(token))
    }

    fn place(&self, token: &str, idempotency_key: &str) -> Answer {
        let request = self.system.api.request("POST", "/v1/orders").header("x-api-key", token);
        Api::send(request.header("idempotency-key", idempotency_key).json(&valid_order()))
    }
}

fn placed_order_id(answer: &Answer) -> String {
    answer.json()["order_id"].as_str().unwrap().to_owned()
}

#[test]
fn orders_of_a_tenant_are_invisible_to_other_tenants() {
    let guarded = Guarded::start();
    let scopes = "orders:write,orders:read,audit:read";
    let (a_id, a) = guarded.create_key(&["--tenant", "a"], scopes);
    let (_, b) = guarded.create_key(&["--tenant", "b"], scopes);
    let (_, operator) = guarded.create_key(&["--all-tenants"], "orders:read,audit:read,ops:read");

    let placed = guarded.place(&a, "k-1");
    assert_eq!(placed.status, 202, "{placed:?}");
    let id = placed_order_id(&placed);
    let not_found = json!({"error": format!("Order {id} not found")});
    for path in [
        format!("/v1/orders/{id}"),
        format!("/order/{id}"),
        format!("/v1/orders/{id}?at_revision=0"),
        format!("/v1/orders/{id}/history"),
        format!("/v1/orders/{id}/history/compare?from=0"),
    ] {
        assert_eq!(guarded.get(&path, &a).status, 200, "{path}");
        assert_eq!(guarded.get(&path, &operator).status, 200, "{path}");
        let denied = guarded.get(&path, &b);
        assert_eq!((denied.status, denied.json()), (404, not_found.clone()), "{path}");
    }
    assert_eq!(guarded.get("/v1/orders", &operator).status, 200);
    let for_operators = ["/v1/stats", "/v1/dead-letters", &format!("/v1/dead-letters/{id}")];
    for path in for_operators {
        assert_eq!(guarded.get(path, &a).status, 403, "{path}");
    }

    // Another principal's request with the same idempotency key places another order.
    assert_ne!(placed_order_id(&guarded.place(&b, "k-1")), id);
    let again = guarded.place(&a, "k-1");
    assert_eq!(
        (placed_order_id(&again), again.header("idempotent-replayed")),
        (id.clone(), Some("true"))
    );

    let listed = |token: &str| {
        let page = guarded.get("/v1/orders", token).json();
        let ids = page["items"].as_array().unwrap().iter().map(|order| order["order_id"].clone());
        ids.collect::<Vec<Value>>()
    };
    wait::until("both orders are listed", || (listed(&operator).len() == 2).then_some(()));
    assert_eq!(listed(&a), [json!(id)]);
    let of_b = listed(&b);
    assert!(of_b.len() == 1 && of_b[0] != id, "{of_b:?}");
    let page = guarded.get("/v1/orders?limit=1", &operator).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let theirs = guarded.get(&format!("/v1/orders?cursor={cursor}&limit=200"), &b).json();
    assert!(
        !theirs.to_string().contains(&id),
        "a cursor of another tenant grants no access: {theirs}"
    );

    let history = guarded.get(&format!("/v1/orders/{id}/history"), &a).json();
    let metadata = &history["events"][0]["metadata"];
    assert_eq!(metadata["tenant"], "a");
    assert_eq!(metadata["actor"], format!("api-key:{a_id}"));
}

/// Reads the feed with a key from the beginning to an event of `last`, and returns the orders.
fn read_feed_until(guarded: &Guarded, token: &str, last: &str) -> BTreeSet<String> {
    let request = guarded.system.api.request("GET", "/v1/events/stream");
    let request = request.header("x-api-key", token).header("last-event-id", "0-0");
    let response = request.timeout(PATIENCE).send().unwrap();
    assert_eq!(response.status(), 200);
    let mut heard = BTreeSet::new();
    for line in BufReader::new(response).lines() {
        let line = line.unwrap();
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data).unwrap();
        heard.insert(event["order_id"].as_str().unwrap().to_owned());
        if event["order_id"] == last {
            return heard;
        }
    }
    panic!("the feed ended");
}

#[test]
fn feed_of_a_tenant_contains_only_its_orders() {
    let guarded = Guarded::start();
    let scopes = "orders:write,orders:read,audit:read";
    let (_, a) = guarded.create_key(&["--tenant", "a"], scopes);
    let (_, b) = guarded.create_key(&["--tenant", "b"], scopes);
    let (_, operator) = guarded.create_key(&["--all-tenants"], scopes);
    let (_, reader) = guarded.create_key(&["--tenant", "a"], "orders:read");
    let order = |token: &str, key: &str| placed_order_id(&guarded.place(token, key));
    let (first, theirs, nobodys) = (order(&a, "1"), order(&b, "2"), order(&operator, "3"));
    let last = order(&a, "4");

    assert_eq!(read_feed_until(&guarded, &a, &last), BTreeSet::from([first.clone(), last.clone()]));
    assert_eq!(read_feed_until(&guarded, &b, &theirs), BTreeSet::from([theirs.clone()]));
    let of_b = BTreeSet::from([theirs.clone()]);
    let all = BTreeSet::from([first, theirs, nobodys, last.clone()]);
    assert_eq!(read_feed_until(&guarded, &operator, &last), all);
    assert_eq!(guarded.get("/v1/events/stream", &reader).status, 403);

    let listed = |token: &str| -> BTreeSet<String> {
        let page = guarded.get("/v1/events?limit=200", token).json();
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["order_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!([listed(&b), listed(&operator)], [of_b, all]);
    for path in ["/v1/events", "/v1/ops/projections"] {
        assert_eq!(guarded.get(path, &reader).status, 403, "{path}");
    }
}

#[test]
fn feed_ends_when_its_key_is_revoked() {
    let guarded = Guarded::start();
    let (id, token) = guarded.create_key(&["--tenant", "a"], "audit:read");
    let request = guarded.system.api.request("GET", "/v1/events/stream");
    let feed = request.header("x-api-key", &token).timeout(PATIENCE).send().unwrap();
    assert_eq!(feed.status(), 200);
    assert!(guarded.dofs(&["keys", "revoke", &id, "--yes"]).status.success());
    // `text` fails if the feed ends by a timeout.
    let said = feed.text().unwrap();
    assert!(said.contains(": events follow"), "{said}");
}

#[test]
fn idempotency_keys_are_scoped_to_the_api_key() {
    let guarded = Guarded::start();
    let (_, shop) = guarded.create_key(&["--tenant", "a"], "orders:write");
    let (_, till) = guarded.create_key(&["--tenant", "a"], "orders:write");
    let (one, other) = (guarded.place(&shop, "1"), guarded.place(&till, "1"));
    assert_eq!((one.status, other.status), (202, 202));
    assert_ne!(placed_order_id(&one), placed_order_id(&other));
}

#[test]
fn key_is_valid_until_it_is_revoked() {
    let guarded = Guarded::start();
    let unauthorized = guarded.system.api.get("/v1/orders");
    assert!([401, 503].contains(&unauthorized.status), "{unauthorized:?}");
    let (id, token) = guarded.create_key(&["--all-tenants"], "orders:read");
    assert_eq!(guarded.get("/v1/orders", &token).status, 200);
    assert_eq!(guarded.place(&token, "k").status, 403);
    let url = guarded.system.api.url();
    let listed = guarded.dofs(&["order", "list", "--url", &url, "--api-key", &token]);
    assert!(listed.status.success(), "{listed:?}");
    let refused = guarded.dofs(&["order", "list", "--url", &url]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--api-key"), "{refused:?}");

    let (_, secret) = token.rsplit_once('_').unwrap();
    let shown = guarded.dofs(&["keys", "list", "--json"]).stdout;
    assert!(shown.contains(&id) && shown.contains("active") && !shown.contains(secret), "{shown}");

    assert!(guarded.dofs(&["keys", "revoke", &id, "--yes"]).status.success());
    wait::until("the key is refused", || {
        (guarded.get("/v1/orders", &token).status == 401).then_some(())
    });
    let shown = guarded.dofs(&["keys", "list"]).stdout;
    assert!(shown.contains("revoked"), "{shown}");
    assert_eq!(guarded.dofs(&["keys", "revoke", "no-such-key", "--yes"]).status.code(), Some(4));
    let log = format!("{:?}", guarded.system.process.log_lines());
    assert!(!log.contains(secret), "{log}");
}

/// Events of a later release may restrict or revoke a key, so they must never leave a key valid.
#[test]
fn unreadable_key_event_rejects_the_keys_that_it_may_restrict() {
    let guarded = Guarded::start();
    let keys: Vec<_> =
        (0..3).map(|_| guarded.create_key(&["--all-tenants"], "orders:read")).collect();
    let runtime = Runtime::new().unwrap();
    let append = |event_type: &str, data: &Value, metadata: &str| {
        runtime.block_on(async {
            let tool = StreamTool::new(&guarded.store);
            tool.append_raw("api-keys", event_type, &data.to_string(), metadata).await;
        });
    };
    let wait_until_only_valid = |valid: &[usize]| {
        wait::until("exactly these keys are valid", || {
            let is_expected = |index: usize| {
                let status = if valid.contains(&index) { 200 } else { 401 };
                guarded.get("/v1/orders", &keys[index].1).status == status
            };
            (0..3).all(is_expected).then_some(())
        });
    };
    append("ApiKeyRestricted", &json!({"key_id": keys[0].0, "from": "10.0.0.0/8"}), "{}");
    wait_until_only_valid(&[1, 2]);
    append("ApiKeyRevoked", &json!({"key_id": keys[1].0}), r#"{"schema_version": 2}"#);
    wait_until_only_valid(&[2]);
    // A key in a newer schema is not granted, and rejects no other.
    append("ApiKeyCreated", &json!({"key_id": "later"}), r#"{"schema_version": 2}"#);
    append("ApiKeysSuspended", &json!({"tenant": "a"}), "{}");
    wait_until_only_valid(&[]);
    let listed = guarded.dofs(&["keys", "list"]).stdout;
    assert!(!listed.contains("later") && !listed.contains("active"), "{listed}");
    let log = format!("{:?}", guarded.system.process.log_lines());
    assert!(log.contains("API key event unreadable"), "{log}");

    let (_, token) = guarded.create_key(&["--all-tenants"], "orders:read");
    assert_eq!(guarded.get("/v1/orders", &token).status, 200);
}

#[test]
fn tenant_key_cannot_have_operator_scopes() {
    let guarded = Guarded::start();
    let make = |whose: &[&str]| {
        let make = ["keys", "create", "--name", "x", "--scope", "ops:read"];
        guarded.dofs(&[&make, whose].concat())
    };
    assert_eq!(make(&["--tenant", "a"]).status.code(), Some(2));
    assert_eq!(make(&["--tenant", "a b", "--scope", "orders:read"]).status.code(), Some(2));
    assert_eq!(make(&[]).status.code(), Some(2));
    assert_eq!(make(&["--all-tenants"]).status.code(), Some(0));
}

#[test]
fn events_record_the_key_and_the_request_id() {
    let guarded = Guarded::start();
    let scopes = "orders:write,orders:read,audit:read,ops:read,ops:write";
    let (id, token) = guarded.create_key(&["--all-tenants"], scopes);
    let actor = json!(format!("api-key:{id}"));
    let url = guarded.system.api.url();
    let dofs = |arguments: &[&str]| {
        let with_key = [arguments, &["--json", "--url", &url, "--api-key", &token]].concat();
        guarded.dofs(&with_key).json()
    };

    // With a key, the actor of the request is ignored.
    let request = guarded.system.api.request("POST", "/v1/ops/worker/pause").bearer_auth(&token);
    let paused = Api::send(request.json(&json!({"actor": "root"}))).json();
    assert_eq!((&paused["paused"], &paused["actor"]), (&json!(true), &actor));
    let resumed = dofs(&["worker", "resume", "--actor", "root"]);
    assert_eq!((&resumed["paused"], &resumed["actor"]), (&json!(false), &actor));
    assert_eq!(dofs(&["worker", "status"])["actor"], actor);
    let empty = guarded.system.api.request("POST", "/v1/ops/worker/resume").bearer_auth(&token);
    assert_eq!(Api::send(empty).status, 200);
    dofs(&["dead-letters", "list"]);

    let request = guarded.system.api.request("POST", "/v1/orders").bearer_auth(&token);
    let placed = Api::send(request.header("x-request-id", "checkout-7").json(&valid_order()));
    assert_eq!(placed.header("x-request-id"), Some("checkout-7"));
    let order_id = placed_order_id(&placed);
    dofs(&["audit", "compare", &order_id, "0"]);
    let history = dofs(&["audit", "show", &order_id]);
    let metadata = &history["events"][0]["metadata"];
    assert_eq!((&metadata["request_name"], &metadata["actor"]), (&json!("checkout-7"), &actor));
    assert_eq!(metadata["request_id"], metadata["$causationId"]);
    let verified = guarded.dofs(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn key_name_is_validated_on_creation() {
    let guarded = Guarded::start();
    let create = |name: &str| {
        let asked = ["keys", "create", "--all-tenants", "--scope", "orders:read", "--name", name];
        guarded.dofs(&asked)
    };
    for wrong in ["", &"x".repeat(101)] {
        let refused = create(wrong);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let said = refused.stderr;
        assert!(said.contains("use 1 to 100 printable characters"), "{said}");
    }
    let made = create("shop front");
    assert!(made.status.success(), "{made:?}");
    let said = made.stderr;
    assert!(said.contains("within two seconds"), "{said}");
}
