//! The frame of every page: navigation, security headers, missing pages, colours.

use axum::http::{StatusCode, header};

use super::fake_api::{FakeApi, problem};
use super::visitor::Visitor;

#[tokio::test]
async fn page_loads_everything_from_its_own_origin() {
    let page = Visitor::of(&FakeApi::open()).get("/console").await;
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.html.contains(" style=") && !page.html.contains("<style"), "{}", page.html);
    assert!(!page.html.contains(" onclick") && !page.html.contains("javascript:"), "{}", page.html);
}

#[tokio::test]
async fn chosen_colours_are_remembered() {
    let mut visitor = Visitor::of(&FakeApi::open());
    let fields = [("theme", "dark"), ("back", "/console")];
    let answer = visitor.submit("/console", "/console/theme", &fields).await;
    assert_eq!(
        (answer.status, answer.location.as_deref()),
        (StatusCode::SEE_OTHER, Some("/console"))
    );
    visitor.get("/console").await.assert_contains(&["data-theme=\"dark\""]);
}

#[tokio::test]
async fn shortcuts_are_switched_off_and_on_again() {
    let mut visitor = Visitor::of(&FakeApi::open());
    let page = visitor.get("/console").await;
    page.assert_contains(&["data-shortcuts=\"on\"", "name=\"shortcuts\" checked"]);
    let answer = visitor.submit("/console", "/console/shortcuts", &[]).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "the page stays");
    let page = visitor.get("/console/sign-in").await;
    page.assert_contains(&["data-shortcuts=\"off\""]);
    let page = visitor.get("/console").await;
    page.assert_contains(&["data-shortcuts=\"off\"", "name=\"shortcuts\">"]);
    visitor.submit("/console", "/console/shortcuts", &[("shortcuts", "on")]).await;
    visitor.get("/console").await.assert_contains(&["data-shortcuts=\"on\""]);
}

#[tokio::test]
async fn addresses_of_forms_without_a_page_lead_to_the_console() {
    let mut visitor = Visitor::of(&FakeApi::open());
    for address in ["/console/sign-out", "/console/theme", "/console/shortcuts"] {
        let answer = visitor.get(address).await;
        assert_eq!(answer.location.as_deref(), Some("/console"), "{address}: {}", answer.status);
    }
}

#[tokio::test]
async fn outage_page_links_to_the_same_address() {
    let away = problem(503, "event_store_unavailable", "Event store away");
    let api = FakeApi::open().with_answer("/v1/principal", 503, away);
    let page = Visitor::of(&api).get("/console/orders?status=FAILED&q=a%22b").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    page.assert_contains(&["href=\"/console/orders?status=FAILED&amp;q=a%22b\">Try again"]);
}

#[tokio::test]
async fn address_without_a_page_is_reported() {
    let page = Visitor::of(&FakeApi::open()).get("/console/no-such-page").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    page.assert_contains(&["Page not found", "/console/no-such-page"]);
}
