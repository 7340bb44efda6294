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
async fn guesses_from_one_ipv6_network_are_counted_together() {
    let api = FakeApi::with_key(&SCOPES, None);
    let visitor = Visitor::of(&api);
    let mut last = StatusCode::OK;
    for host in 1..=21 {
        let mut guesser = visitor.another_at(&format!("2001:db8::{host}"));
        last = sign_in(&mut guesser, "dofs_wrong_secret").await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let mut other = visitor.another_at("2001:db8:0:1::1");
    assert_eq!(sign_in(&mut other, "dofs_wrong_secret").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn lost_session_is_explained() {
    let api = FakeApi::with_key(&SCOPES, None);
    let page = Visitor::of(&api).get("/console/sign-in?signed_in=1&next=/console").await;
    page.assert_contains(&["needs HTTPS", "console.session_secret"]);
}

const FROM_OTHER_SITE: [(&str, &str); 3] = [
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-mode", "navigate"),
    ("referer", "https://chat.example/"),
];

#[tokio::test]
async fn link_of_another_site_reloads_the_page_and_keeps_the_session() {
    let address = "/console/orders?status=FAILED&q='%22";
    for api in [FakeApi::open(), FakeApi::with_key(&SCOPES, None)] {
        let mut visitor = Visitor::of(&api);
        let page = visitor.get_with(address, &FROM_OTHER_SITE).await;
        assert_eq!(page.status, StatusCode::OK);
        page.assert_contains(&["content=\"0;url=/console/orders?status=FAILED&amp;q='%22\""]);
        assert!(!page.headers.contains_key(header::SET_COOKIE), "{:?}", page.headers);
        let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
    }
}

#[tokio::test]
async fn page_does_not_reload_twice() {
    let mut visitor = Visitor::of(&FakeApi::open());
    let [site, mode, _] = FROM_OTHER_SITE;
    let referrer = ("referer", "http://localhost/console/workers");
    let page = visitor.get_with("/console/workers", &[site, mode, referrer]).await;
    page.assert_contains(&["<h1>Workers</h1>"]);
}

#[tokio::test]
async fn request_with_a_session_is_not_reloaded() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut visitor = Visitor::of(&api);
    sign_in(&mut visitor, KEY).await;
    let page = visitor.get_with("/console/workers", &FROM_OTHER_SITE).await;
    page.assert_contains(&["<h1>Workers</h1>"]);
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
