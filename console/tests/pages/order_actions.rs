//! The forms of an order: redrive and discard.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::fake_api::{FakeApi, KEY, ORDER, dead_letter, failed_order, problem, with};
use super::visitor::{Shown, Visitor};

fn address(rest: &str) -> String {
    format!("/console/orders/{ORDER}{rest}")
}

fn api_path(rest: &str) -> String {
    format!("/v1/orders/{ORDER}{rest}")
}

async fn submit(api: &FakeApi, form: &str, fields: &[(&str, &str)]) -> Shown {
    Visitor::of(api).submit(&address(form), &address(form), fields).await
}

/// Fields of the redrive form as the browser sends them if nothing is corrected.
const UNCHANGED: [(&str, &str); 4] = [
    ("revision", "8"),
    ("customer_id", "cust-retail-001"),
    ("product_id", "prod-widget-001"),
    ("quantity", "2"),
];

fn redrive_fields(changed: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let is_kept = |(name, _): &(&str, &str)| !changed.iter().any(|(other, _)| other == name);
    UNCHANGED.into_iter().filter(is_kept).chain(changed.iter().copied()).collect()
}

#[tokio::test]
async fn redrive_without_corrections_sends_the_reason_only() {
    let api = FakeApi::open();
    let fields = redrive_fields(&[("reason", " Gateway is back "), ("actor", "ann")]);
    let mut visitor = Visitor::of(&api);
    let answer = visitor.submit(&address("/redrive"), &address("/redrive"), &fields).await;
    assert_eq!((answer.status, answer.location), (StatusCode::SEE_OTHER, Some(address(""))));
    let sent = api.commands().pop().unwrap();
    assert_eq!(sent.uri, api_path("/redrive"));
    assert_eq!(sent.if_match.as_deref(), Some("\"8\""));
    assert_eq!(sent.body, json!({"actor": "ann", "reason": "Gateway is back"}));
    visitor.get(&address("")).await.assert_contains(&["The order is queued again: attempt 2."]);
}

#[tokio::test]
async fn redrive_sends_only_the_corrected_values() {
    let sent = async |changed: &[(&'static str, &'static str)]| {
        let api = FakeApi::open();
        let mut fields = redrive_fields(changed);
        fields.push(("reason", "Corrected"));
        submit(&api, "/redrive", &fields).await;
        let mut body = api.commands().pop().unwrap().body;
        body.as_object_mut().unwrap().remove("reason");
        body
    };
    assert_eq!(sent(&[("customer_id", "cust-2")]).await, json!({"customer_id": "cust-2"}));
    let quantity = json!({"items": [{"product_id": "prod-widget-001", "quantity": 3}]});
    assert_eq!(sent(&[("quantity", "3")]).await, quantity);
    // The API names the fault.
    let fault = json!({"items": [{"product_id": "prod-widget-001", "quantity": "many"}]});
    assert_eq!(sent(&[("quantity", "many")]).await, fault);
    let second_line =
        [("product_id", ""), ("quantity", ""), ("product_id", "prod-2"), ("quantity", "1")];
    let replaced = json!({"items": [{"product_id": "prod-2", "quantity": 1}]});
    assert_eq!(sent(&second_line).await, replaced);
}

#[tokio::test]
async fn line_breaks_that_a_browser_removes_are_no_correction() {
    let order = with(
        failed_order(),
        &json!({"customer_id": "cust\n1",
        "items": [{"product_id": "a\r\nb", "quantity": 2}, {"product_id": "c", "quantity": 1}]}),
    );
    let api = FakeApi::open().with_answer(&api_path(""), 200, order);
    let mut fields = vec![("revision", "8"), ("reason", "Again"), ("customer_id", "cust1")];
    fields.extend([
        ("product_id", "ab"),
        ("quantity", "2"),
        ("product_id", "c"),
        ("quantity", "5"),
    ]);
    submit(&api, "/redrive", &fields).await;
    let items =
        json!([{"product_id": "a\r\nb", "quantity": 2}, {"product_id": "c", "quantity": 5}]);
    assert_eq!(api.commands().pop().unwrap().body, json!({"reason": "Again", "items": items}));
}

#[tokio::test]
async fn line_is_added_without_sending_anything() {
    let api = FakeApi::open();
    let fields = redrive_fields(&[("reason", "Typed"), ("quantity", "7"), ("add_line", "1")]);
    let page = submit(&api, "/redrive", &fields).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(api.commands().is_empty());
    page.assert_contains(&["value=\"Typed\"", "value=\"7\"", "Product of line 2"]);
    page.assert_contains(&["<details class=\"field\" open>"]);
}

#[tokio::test]
async fn actions_need_a_reason() {
    let api = FakeApi::open();
    let fields = redrive_fields(&[("reason", "  "), ("customer_id", "cust-2")]);
    let page = submit(&api, "/redrive", &fields).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.assert_contains(&["Enter a reason.", "value=\"cust-2\""]);
    let page = submit(&api, "/discard", &[("revision", "8"), ("reason", "")]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.assert_contains(&["Enter a reason."]);
    assert!(api.commands().is_empty());
}

#[tokio::test]
async fn order_that_changed_is_shown_again_with_its_new_state() {
    let changed = problem(412, "precondition_failed", "Order has changed: read it again");
    let current = with(
        failed_order(),
        &json!({"revision": 12, "attempt": 2, "customer_id": "cust-of-another-operator"}),
    );
    let api = FakeApi::open()
        .with_answer(&api_path("/redrive"), 412, changed)
        .with_answer(&api_path(""), 200, current)
        .with_answer(&api_path("?at_revision=8"), 200, failed_order());
    let fields = redrive_fields(&[("reason", "Gateway is back"), ("quantity", "9")]);
    let page = submit(&api, "/redrive", &fields).await;
    assert_eq!(page.status, StatusCode::PRECONDITION_FAILED);
    page.assert_contains(&[
        "The order has changed since revision 8: it has revision 12 now",
        "cust-of-another-operator",
    ]);
    page.assert_contains(&["name=\"revision\" value=\"12\"", "value=\"Gateway is back\""]);
    // The visitor's correction stays, the other operator's correction is not undone.
    page.assert_contains(&[
        "name=\"quantity\" value=\"9\"",
        "name=\"customer_id\" value=\"cust-of-another-operator\"",
    ]);
}

#[tokio::test]
async fn refused_redrive_shows_the_faults_and_what_was_typed() {
    let mut refused = problem(400, "invalid_body", "Invalid request body");
    refused["errors"] = json!([{"pointer": "/items/0/quantity", "detail": "must be an integer"}]);
    let api = FakeApi::open().with_answer(&api_path("/redrive"), 400, refused);
    let fields = redrive_fields(&[("reason", "Typed"), ("quantity", "many")]);
    let page = submit(&api, "/redrive", &fields).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    page.assert_contains(&["<code>/items/0/quantity</code> must be an integer", "value=\"many\""]);
    page.assert_contains(&["value=\"Typed\""]);
}

#[tokio::test]
async fn order_that_cannot_be_redriven_has_no_form() {
    for (changed, reason) in [
        (json!({"stage": "validation"}), "broke a business rule and cannot be redriven"),
        (json!({"status": "PROCESSING", "stage": null}), "only a failed order can be redriven"),
    ] {
        let order = with(failed_order(), &changed);
        let api = FakeApi::open().with_answer(&api_path(""), 200, order);
        let page = Visitor::of(&api).get(&address("/redrive")).await;
        page.assert_contains(&[reason]);
        assert!(!page.html.contains("name=\"reason\""), "{}", page.html);
        let page = Visitor::of(&api).get(&address("/discard")).await;
        page.assert_contains(&["is not a dead letter"]);
    }
}

#[tokio::test]
async fn discard_sends_the_reason_and_shows_the_revision() {
    let api = FakeApi::open();
    let mut visitor = Visitor::of(&api);
    let form = visitor.get(&address("/discard")).await;
    form.assert_contains(&["You see revision 8", "A redrive remains possible"]);
    let fields = [("revision", "8"), ("reason", "The customer has cancelled"), ("actor", "")];
    let answer = visitor.submit(&address("/discard"), &address("/discard"), &fields).await;
    assert_eq!((answer.status, answer.location), (StatusCode::SEE_OTHER, Some(address(""))));
    let sent = api.commands().pop().unwrap();
    assert_eq!(sent.uri, format!("/v1/dead-letters/{ORDER}/discard"));
    assert_eq!(sent.if_match.as_deref(), Some("\"8\""));
    assert_eq!(sent.body, json!({"reason": "The customer has cancelled"}));
    visitor.get(&address("")).await.assert_contains(&["The dead letter is discarded."]);
}

#[tokio::test]
async fn refused_discard_shows_the_error_and_what_was_typed() {
    let refused = problem(409, "conflict", "The order is not a dead letter");
    let path = format!("/v1/dead-letters/{ORDER}/discard");
    let api = FakeApi::open().with_answer(&path, 409, refused);
    let page = submit(&api, "/discard", &[("revision", "8"), ("reason", "Typed")]).await;
    assert_eq!(page.status, StatusCode::CONFLICT);
    page.assert_contains(&["The order is not a dead letter", "value=\"Typed\""]);
}

#[tokio::test]
async fn discard_of_an_order_that_changed_shows_its_new_revision() {
    let changed = problem(412, "precondition_failed", "Order has changed: read it again");
    let current = with(failed_order(), &json!({"revision": 12, "attempt": 2}));
    let path = format!("/v1/dead-letters/{ORDER}/discard");
    let api =
        FakeApi::open().with_answer(&path, 412, changed).with_answer(&api_path(""), 200, current);
    let page = submit(&api, "/discard", &[("revision", "8"), ("reason", "Typed")]).await;
    assert_eq!(page.status, StatusCode::PRECONDITION_FAILED);
    page.assert_contains(&[
        "The order has changed since revision 8: it has revision 12 now. Nothing was discarded.",
        "name=\"revision\" value=\"12\"",
        "value=\"Typed\"",
    ]);
    // The first of two clicks has discarded it.
    let letter = with(dead_letter(), &json!({"is_discarded": true}));
    let api = api.with_answer(&format!("/v1/dead-letters/{ORDER}"), 200, letter);
    let mut visitor = Visitor::of(&api);
    let fields = [("revision", "8"), ("reason", "Typed")];
    let answer = visitor.submit(&address("/discard"), &address("/discard"), &fields).await;
    assert_eq!((answer.status, answer.location), (StatusCode::SEE_OTHER, Some(address(""))));
    visitor.get(&address("")).await.assert_contains(&["The dead letter is discarded."]);
}

#[tokio::test]
async fn second_click_of_a_redrive_does_not_deny_the_first() {
    let changed = problem(412, "precondition_failed", "Order has changed: read it again");
    let running = json!({"revision": 9, "attempt": 2, "status": "PROCESSING", "stage": null});
    let api = FakeApi::open()
        .with_answer(&api_path("/redrive"), 412, changed)
        .with_answer(&api_path(""), 200, with(failed_order(), &running))
        .with_answer(&api_path("?at_revision=8"), 200, failed_order());
    let page = submit(&api, "/redrive", &redrive_fields(&[("reason", "Gateway is back")])).await;
    page.assert_contains(&["it has revision 9 now", "The order is being processed"]);
    assert!(!page.html.contains("Nothing was redriven"), "{}", page.html);
}

#[tokio::test]
async fn read_only_key_sees_no_forms() {
    let api = FakeApi::with_key(&["orders:read", "audit:read", "ops:read"], None);
    let mut visitor = Visitor::of(&api);
    visitor.post("/console/sign-in", &[("key", KEY), ("next", "/console/orders")]).await;
    for form in ["/redrive", "/discard"] {
        let page = visitor.get(&address(form)).await;
        page.assert_contains(&["it lacks <code>ops:write</code>"]);
        assert!(!page.html.contains("name=\"reason\""), "{}", page.html);
    }
}

#[tokio::test]
async fn name_of_the_operator_is_asked_only_without_keys() {
    let page = Visitor::of(&FakeApi::open()).get(&address("/redrive")).await;
    page.assert_contains(&["Your name"]);
    let api = FakeApi::with_key(&["orders:read", "ops:write"], None);
    let mut visitor = Visitor::of(&api);
    visitor.post("/console/sign-in", &[("key", KEY), ("next", "/console/orders")]).await;
    let page = visitor.get(&address("/redrive")).await;
    assert!(!page.html.contains("Your name") && page.html.contains("Reason"), "{}", page.html);
    let mut fields = redrive_fields(&[("reason", "Gateway is back")]);
    fields.push(("actor", "mallory"));
    for form in ["/redrive", "/discard"] {
        visitor.submit(&address(form), &address(form), &fields).await;
        let sent = api.commands().pop().unwrap();
        assert_eq!(
            (&sent.body["reason"], &sent.body["actor"]),
            (&json!("Gateway is back"), &Value::Null)
        );
    }
    assert_eq!(api.commands().len(), 2);
}
