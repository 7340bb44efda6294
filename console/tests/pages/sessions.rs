//! Sign-in, sign-out, expiry, and the tokens of forms.

use axum::http::{StatusCode, header};

use super::fake_api::{FakeApi, KEY};
use super::visitor::Visitor;

const SCOPES: [&str; 3] = ["orders:read", "ops:read", "ops:write"];

async fn sign_in(visitor: &mut Visitor, key: &str) -> super::visitor::Shown {
    visitor.post("/console/sign-in", &[("key", key), ("next", "/console?window=day")]).await
}

#[tokio::test]
async fn visitor_without_a_key_is_led_to_the_sign_in() {
    let api = FakeApi::with_key(&SCOPES, None);
    let page = Visitor::of(&api).get("/console?window=day").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    let next = "/console/sign-in?next=%2Fconsole%3Fwindow%3Dday";
    assert_eq!(page.location.as_deref(), Some(next));
}

#[tokio::test]
async fn key_opens_a_session_that_ends_by_sign_out() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut visitor = Visitor::of(&api);
    let answer = sign_in(&mut visitor, KEY).await;
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/console", "Max-Age=28800"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains(KEY), "the cookie shows the key: {cookie}");
    let checked = visitor.get(&answer.location.unwrap()).await;
    assert_eq!(checked.location.as_deref(), Some("/console?window=day"));
    visitor.get("/console").await.assert_contains(&["Sign out", "ann"]);
    let answer = visitor.submit("/console", "/console/sign-out", &[]).await;
    assert_eq!(answer.location.as_deref(), Some("/console/sign-in"));
    assert_eq!(visitor.get("/console").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn session_ends_when_it_expires() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut visitor = Visitor::of(&api);
    sign_in(&mut visitor, KEY).await;
    let later = |now| Visitor::at(&api, now).with_cookies_of(&visitor);
    assert_eq!(later("2026-01-02T11:04:29Z").get("/console").await.status, StatusCode::OK);
    assert_eq!(later("2026-01-02T11:04:30Z").get("/console").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn wrong_key_is_refused_and_guesses_are_limited() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut visitor = Visitor::of(&api);
    let page = sign_in(&mut visitor, "dofs_wrong_secret").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    page.assert_contains(&["This key is not valid"]);
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(sign_in(&mut visitor, "dofs_wrong_secret").await.status);
    }
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
}

#[tokio::test]
async fn form_without_the_token_of_the_session_changes_nothing() {
    let api = FakeApi::open();
    let mut visitor = Visitor::of(&api);
    visitor.get("/console").await;
    let fields = [("theme", "dark"), ("back", "/console"), ("form_token", "guessed")];
    let page = visitor.post("/console/theme", &fields).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    page.assert_contains(&["This form has expired"]);
}

#[tokio::test]
async fn key_without_scopes_sees_no_pages_of_operators() {
    let api = FakeApi::with_key(&["orders:read"], Some("shop"));
    let mut visitor = Visitor::of(&api);
    sign_in(&mut visitor, KEY).await;
    let page = visitor.get("/console").await;
    assert_eq!(page.location.as_deref(), Some("/console/orders"));
}
