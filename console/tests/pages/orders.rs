//! The list of orders: filters, search, pages, the customer's summary, new orders.

use axum::http::StatusCode;
use serde_json::json;

use super::fake_api::{FakeApi, KEY, ORDER, failed_order, problem, with};
use super::visitor::Visitor;

/// A hostile text of 256 characters.
pub(super) fn hostile_text() -> String {
    let text = "<script>alert(1)</script>\u{202e}\u{1f600}\"'&";
    format!("{text}{}", "x".repeat(256 - text.chars().count()))
}

#[tokio::test]
async fn list_shows_orders_with_their_failures() {
    let page = Visitor::of(&FakeApi::open()).get("/console/orders").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["Fulfilled", "Failed", "retries_exhausted", "cust-retail-001"]);
    page.assert_contains(&[&format!("href=\"/console/orders/{ORDER}\""), "data-region=\"new\""]);
    page.assert_contains(&["href=\"/console/orders?cursor=next\""]);
}

#[tokio::test]
async fn filters_are_read_as_utc_and_sent_to_the_api() {
    let api = FakeApi::open();
    let address = "/console/orders?status=failed&customer=cust+1&from=2026-01-02T03:04\
                   &to=2026-01-03T05:00:00%2B01:00&cursor=abc";
    let page = Visitor::of(&api).get(address).await;
    assert_eq!(page.status, StatusCode::OK);
    let query = "status=FAILED&customer_id=cust+1&from=2026-01-02T03%3A04%3A00Z\
                 &to=2026-01-03T04%3A00%3A00Z&cursor=abc";
    let reads = api.reads();
    assert!(reads.contains(&format!("/v1/orders?{query}")), "{reads:?}");
    assert!(reads.contains(&"/v1/customers/cust%201".to_owned()), "{reads:?}");
    page.assert_contains(&[
        "value=\"2026-01-02T03:04:00\"",
        "value=\"2026-01-03T04:00:00\"",
        "option value=\"FAILED\" selected",
        "First page",
        "cursor=next",
    ]);
}

#[tokio::test]
async fn invalid_filter_is_named_and_nothing_is_listed() {
    let api = FakeApi::open();
    for (query, reason) in [
        ("from=tomorrow", "Invalid from `tomorrow`."),
        ("to=1", "Invalid to `1`."),
        ("status=lost", "Invalid status `lost`."),
    ] {
        let page = Visitor::of(&api).get(&format!("/console/orders?{query}")).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{query}");
        page.assert_contains(&[reason]);
    }
    assert!(!api.reads().iter().any(|uri| uri.starts_with("/v1/orders")));
    // The filter's button sends empty fields.
    let empty = "/console/orders?status=&customer=&from=&to=&cursor=";
    assert_eq!(Visitor::of(&api).get(empty).await.status, StatusCode::OK);
}

#[tokio::test]
async fn search_leads_to_an_order_or_to_a_customer() {
    let mut visitor = Visitor::of(&FakeApi::open());
    for (searched, target) in [
        (format!("+{}+", ORDER.to_uppercase()), format!("/console/orders/{ORDER}")),
        ("a%26b".to_owned(), "/console/orders?customer=a%26b".to_owned()),
    ] {
        let answer = visitor.get(&format!("/console/orders?q={searched}")).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        assert_eq!(answer.location, Some(target));
    }
}

#[tokio::test]
async fn search_finds_a_customer_whose_id_is_a_uuid() {
    let missing = || problem(404, "order_not_found", "Order not found");
    let away = problem(503, "read_model_unavailable", "Read model unavailable");
    let order = format!("/console/orders/{ORDER}");
    let customer = format!("/console/orders?customer={ORDER}");
    let of_customer = format!("/v1/customers/{ORDER}");
    let api = || FakeApi::open().with_answer(&format!("/v1/orders/{ORDER}"), 404, missing());
    for (api, target) in [
        (FakeApi::open(), &order),
        (api(), &customer),
        // The list tells that it cannot be read.
        (api().with_answer(&of_customer, 503, away), &customer),
        // The page tells that there is no such order.
        (api().with_answer(&of_customer, 404, missing()), &order),
    ] {
        let answer = Visitor::of(&api).get(&format!("/console/orders?q={ORDER}")).await;
        assert_eq!(answer.location.as_ref(), Some(target));
    }
}

#[tokio::test]
async fn customer_is_summed_up_and_an_unknown_one_is_named() {
    let page = Visitor::of(&FakeApi::open()).get("/console/orders?customer=cust-retail-001").await;
    page.assert_contains(&["0 processing, 2 fulfilled, 1 failed", "Total quantity"]);
    let none = json!({"items": [], "next_cursor": null});
    let away = problem(404, "not_found", "Customer nobody has no orders");
    let api = FakeApi::open().with_answer("/v1/orders", 200, none.clone()).with_answer(
        "/v1/customers/nobody",
        404,
        away,
    );
    let page = Visitor::of(&api).get("/console/orders?customer=nobody&status=FAILED").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["No order matches", "<bdi>nobody</bdi>", "with the status FAILED"]);
    let page = Visitor::of(&FakeApi::open().with_answer("/v1/orders", 200, none))
        .get("/console/orders")
        .await;
    page.assert_contains(&["No orders yet."]);
}

#[tokio::test]
async fn new_orders_are_counted_without_moving_the_rows() {
    let newer =
        |id: &str, at: &str| with(failed_order(), &json!({"order_id": id, "received_at": at}));
    let rows = json!({"next_cursor": null, "items": [
        newer("018f2d70-0a2c-7f01-8c11-6e5d4b3a2f12", "2026-01-02T03:04:07Z"),
        // Of the same time as the newest order of the page, with a higher id.
        newer("018f2d70-0a2c-7f01-8c11-6e5d4b3a2f11", "2026-01-02T03:04:05.1Z"),
        newer("018f2d70-0a2c-7f01-8c11-6e5d4b3a2f10", "2026-01-02T03:04:05.1Z"),
        failed_order(),
    ]});
    let page = Visitor::of(&FakeApi::open()).get("/console/orders?status=FAILED").await;
    let address = page.live_address();
    assert!(address.contains("status%3DFAILED%26seen%3D018f2d70-"), "{address}");
    let api = FakeApi::open().with_answer("/v1/orders", 200, rows);
    let regions = Visitor::of(&api).open_stream(&address, None).await.next_regions().await;
    let link = "<a href=\"/console/orders?status=FAILED\">2 new orders: reload</a>";
    assert_eq!(regions["new"], link);
    let since = "/v1/orders?status=FAILED&from=2026-01-02T03%3A04%3A05.1Z&limit=100";
    assert!(api.reads().contains(&since.to_owned()), "{:?}", api.reads());
    let later_page = Visitor::of(&FakeApi::open()).get("/console/orders?cursor=abc").await;
    assert!(!later_page.html.contains("data-live"), "{}", later_page.html);
}

#[tokio::test]
async fn hostile_customer_is_shown_inert() {
    let text = hostile_text();
    let order = with(failed_order(), &json!({"customer_id": text, "failure_code": text}));
    let page = json!({"items": [order], "next_cursor": null});
    let api = FakeApi::open().with_answer("/v1/orders", 200, page);
    let page = Visitor::of(&api).get("/console/orders").await;
    assert!(!page.html.contains("<script>alert"), "{}", page.html);
    page.assert_contains(&[
        "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;",
        "customer=%3Cscript%3Ealert%281%29%3C%2Fscript%3E",
    ]);
}

#[tokio::test]
async fn list_that_cannot_be_read_is_reported() {
    for (status, code) in [(503, "read_model_unavailable"), (400, "invalid_parameters")] {
        let refused = problem(status, code, "The list cannot be read");
        let api = FakeApi::open().with_answer("/v1/orders", status, refused);
        let page = Visitor::of(&api).get("/console/orders?cursor=forged").await;
        assert_eq!(page.status.as_u16(), status);
        page.assert_contains(&["The list cannot be read", "Reload"]);
    }
}

#[tokio::test]
async fn tenant_sees_its_orders_with_its_key() {
    let api = FakeApi::with_key(&["orders:read"], Some("shop"));
    let mut visitor = Visitor::of(&api);
    visitor.post("/console/sign-in", &[("key", KEY), ("next", "/console/orders")]).await;
    let page = visitor.get("/console/orders").await;
    page.assert_contains(&["cust-retail-001", "shop", "read-only"]);
}
