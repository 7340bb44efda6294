//! The frame of every page: navigation, security headers, missing pages, colours.

use axum::http::{StatusCode, header};

use super::fake_api::FakeApi;
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
async fn address_without_a_page_is_reported() {
    let page = Visitor::of(&FakeApi::open()).get("/console/no-such-page").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    page.assert_contains(&["Page not found", "/console/no-such-page"]);
}
