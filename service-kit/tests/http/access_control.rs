//! Access control: keys, scopes, ownership, rate limit, CORS, security headers and TLS.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use service_kit::auth::{
    Access, ApiKey, ApiKeys, KeyRing, OperationScopes, Ownership, Principal, Scope, Secret,
};
use service_kit::http::{ApiConfig, Listener, Routes, not_found, with_edge};
use service_kit::problem::Problem;
use testkit::store::clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa::OpenApi;

/// Header names and values.
type Headers<'a> = &'a [(&'a str, &'a str)];

const SECRET: [u8; 32] = [7; 32];

/// Settings for several concurrent requests with larger bodies.
fn small_config() -> ApiConfig {
    let max_concurrency = NonZeroUsize::new(64).unwrap();
    ApiConfig { max_body_bytes: 1024, max_concurrency, ..super::test_config() }
}

fn keys_with_scopes(scopes: &[Scope]) -> ApiKeys {
    let key = ApiKey {
        id: "a".to_owned(),
        tenant: Some("shop".to_owned()),
        scopes: scopes.to_vec(),
        secret_sha256: Secret::of(SECRET).sha256(),
        expires_at: None,
    };
    ApiKeys::new("dev", [key])
}

fn key_access(keys: Option<ApiKeys>) -> Access {
    let scopes = OperationScopes::from_api(&Declared::openapi()).with_public("/docs");
    Access::Keys(KeyRing::new(watch::channel(keys.map(Arc::new)).1), Arc::new(scopes))
}

#[utoipa::path(get, path = "/v1/orders", security(("api_key" = ["orders:read"])), responses())]
#[expect(dead_code, reason = "declares the scope")]
fn read_orders() {}

#[utoipa::path(post, path = "/v1/orders", security(("api_key" = ["orders:write"])), responses())]
#[expect(dead_code, reason = "declares the scope")]
fn write_orders() {}

#[derive(OpenApi)]
#[openapi(paths(read_orders, write_orders))]
struct Declared;

/// An ownership check that refuses every request.
struct RefuseAll;

#[async_trait]
impl Ownership for RefuseAll {
    async fn check(&self, tenant: Option<&str>, _: &mut Request<Body>) -> Result<(), Problem> {
        Err(Problem::order_not_found(format!("of {tenant:?}")))
    }
}

fn router_for(config: &ApiConfig, access: Access) -> Router {
    owned_router(config, access, None)
}

fn owned_router(
    config: &ApiConfig,
    access: Access,
    ownership: Option<Arc<dyn Ownership>>,
) -> Router {
    let get_actor = |Extension(principal): Extension<Principal>| async move { principal.actor };
    let protected = Router::new()
        .route("/v1/orders", get(get_actor).post(get_actor))
        .route("/v1/unlisted", post(get_actor))
        .route("/docs", get(|| async { "docs" }))
        .fallback(not_found);
    let health = Router::new().route("/livez", get(|| async { "ok" }));
    with_edge(
        Routes { protected, ownership, health, draining: CancellationToken::new() },
        config,
        access,
        clock(),
    )
}

async fn send(router: &Router, line: &str, headers: Headers<'_>) -> Response<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path).header("host", "test");
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|it| it.to_str().unwrap())
}

#[tokio::test]
async fn only_a_valid_key_with_the_scope_is_admitted() {
    let router =
        router_for(&small_config(), key_access(Some(keys_with_scopes(&[Scope::OrdersRead]))));
    let token = Secret::of(SECRET).token("dev", "a");
    let bearer = format!("Bearer {token}");
    let wrong = format!("Bearer {}", Secret::of([8; 32]).token("dev", "a"));
    let none: Headers<'_> = &[];
    let good: Headers<'_> = &[("authorization", &bearer)];
    let cases: [(&str, Headers<'_>, u16); 18] = [
        ("GET /v1/orders", good, 200),
        ("GET /v1/orders", &[("x-api-key", &token)], 200),
        ("GET /v1/orders", &[("authorization", &format!("bearer  {token} "))], 200),
        ("POST /v1/orders", good, 403),
        ("POST /v1/unlisted", good, 403),
        ("GET /v1/orders", none, 401),
        ("POST /v1/unlisted", none, 401),
        ("DELETE /v1/orders", none, 401),
        ("GET /v1/orders", &[("authorization", &wrong)], 401),
        ("GET /v1/orders", &[("authorization", &token)], 401),
        ("GET /v1/orders", &[("authorization", "Basic YTpi")], 401),
        ("GET /v1/orders", &[("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")], 401),
        ("GET /v1/orders", &[("authorization", "Bearer")], 401),
        ("GET /v1/orders", &[("authorization", "\u{e9}")], 401),
        ("GET /v1/orders", &[("authorization", &bearer), ("authorization", &bearer)], 401),
        ("GET /v1/orders", &[("authorization", &bearer), ("x-api-key", &token)], 401),
        ("GET /nothing", none, 404),
        ("GET /livez", none, 200),
    ];
    for (line, headers, status) in cases {
        let response = send(&router, line, headers).await;
        assert_eq!(response.status(), status, "{line} {headers:?}");
        let challenge = header_text(response.headers(), "www-authenticate");
        assert_eq!(challenge, (status == 401).then_some("Bearer"), "{line}");
    }
    assert_eq!(send(&router, "GET /docs", &[]).await.status(), 200);
}

#[tokio::test]
async fn ownership_is_checked_for_tenants_only() {
    let key = Secret::of(SECRET).token("dev", "a");
    let good: Headers<'_> = &[("x-api-key", &key)];
    let router_with = |access| owned_router(&small_config(), access, Some(Arc::new(RefuseAll)));
    let response = send(&router_with(Access::Open), "GET /v1/orders", &[]).await;
    assert_eq!(response.status(), 200, "there are no tenants");
    let keyed = router_with(key_access(Some(keys_with_scopes(&[Scope::OrdersRead]))));
    let response = send(&keyed, "GET /v1/orders", good).await;
    assert_eq!(response.status(), 404);
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains("shop"), "{body:?}");
    assert_eq!(
        send(&keyed, "POST /v1/orders", good).await.status(),
        403,
        "scopes are checked first"
    );
    // A public route has no principal; the ownership check decides about it too.
    assert_eq!(send(&keyed, "GET /docs", &[]).await.status(), 404);
}

#[tokio::test]
async fn requests_get_503_while_keys_are_unknown() {
    let router = router_for(&small_config(), key_access(None));
    let response = send(&router, "GET /v1/orders", &[("x-api-key", "dofs_dev_a_b")]).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn rate_limited_client_gets_429_with_retry_after() {
    let config = ApiConfig { rate_per_second: 1, rate_burst: 2, ..small_config() };
    let router = router_for(&config, key_access(Some(keys_with_scopes(&[Scope::OrdersRead]))));
    let token = Secret::of(SECRET).token("dev", "a");
    let good: Headers<'_> = &[("x-api-key", &token)];
    for left in ["\"default\";r=1;t=1", "\"default\";r=0;t=2"] {
        let response = send(&router, "GET /v1/orders", good).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header_text(response.headers(), "ratelimit"), Some(left));
        assert_eq!(
            header_text(response.headers(), "ratelimit-policy"),
            Some("\"default\";q=2;w=2")
        );
    }
    let response = send(&router, "GET /v1/orders", good).await;
    assert_eq!(response.status(), 429);
    assert_eq!(header_text(response.headers(), "retry-after"), Some("1"));
    assert!(response.headers().contains_key("ratelimit"));

    // Requests without a valid key count by the peer's address, whatever a header claims.
    let mut statuses = Vec::new();
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        let guess = [("x-api-key", "dofs_dev_a_guess"), ("x-forwarded-for", address)];
        statuses.push(send(&router, "GET /v1/orders", &guess).await.status().as_u16());
    }
    assert_eq!(statuses, [401, 401, 429]);
    assert_eq!(
        send(&router, "GET /livez", &[]).await.status(),
        200,
        "health checks are not limited"
    );
}

#[tokio::test]
async fn cors_allows_configured_origins_only() {
    let preflight = [("origin", "https://shop.example"), ("access-control-request-method", "POST")];
    let closed = router_for(&small_config(), Access::Open);
    let response = send(&closed, "OPTIONS /v1/orders", &preflight).await;
    assert_eq!(response.status(), 405);
    assert_eq!(header_text(response.headers(), "access-control-allow-origin"), None);

    let origins = vec!["https://shop.example".parse().unwrap()];
    let open = router_for(&ApiConfig { cors_origins: origins, ..small_config() }, key_access(None));
    let response = send(&open, "OPTIONS /v1/orders", &preflight).await;
    assert_eq!(response.status(), 200);
    let allowed = header_text(response.headers(), "access-control-allow-origin");
    assert_eq!(allowed, Some("https://shop.example"));
    assert!(response.headers().contains_key("x-request-id"), "preflight responses pass the edge");
    let refused = send(&open, "GET /v1/orders", &preflight[..1]).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("access-control-allow-origin"), "pages can read errors");
    assert_eq!(send(&open, "GET /livez", &[]).await.status(), 200);
    let other = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let response = send(&open, "OPTIONS /v1/orders", &other).await;
    assert_eq!(header_text(response.headers(), "access-control-allow-origin"), None);
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let router = router_for(&small_config(), Access::Open);
    for line in ["GET /v1/orders", "GET /nothing", "GET /livez", "PUT /v1/orders"] {
        let response = send(&router, line, &[]).await;
        let headers = response.headers();
        assert_eq!(header_text(headers, "x-content-type-options"), Some("nosniff"), "{line}");
        assert_eq!(header_text(headers, "cache-control"), Some("no-store"), "{line}");
        assert_eq!(header_text(headers, "x-frame-options"), Some("DENY"), "{line}");
        assert_eq!(header_text(headers, "strict-transport-security"), None, "not without TLS");
        let policy = header_text(headers, "content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{line}: {policy}");
    }
}

/// Writes a new certificate for `localhost`. Returns a client configuration that trusts it.
fn write_certificate(folder: &Path) -> Arc<ClientConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("certificate.pem"), made.cert.pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Sends a request over TLS and returns the response. Fails unless the certificate is trusted.
fn request_over_tls(
    address: std::net::SocketAddr,
    trusted: Arc<ClientConfig>,
) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(trusted, name).map_err(std::io::Error::other)?;
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut tls = rustls::StreamOwned::new(connection, stream);
    tls.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    tls.read_to_string(&mut response)?;
    Ok(response)
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_certificate_is_served_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_certificate(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = ApiConfig {
        tls_certificate: path("certificate.pem"),
        tls_key: path("key.pem"),
        ..small_config()
    };
    let listener = Listener::bind(&config.listen).unwrap().with_tls(&config).unwrap();
    let address = listener.address();
    let stop = CancellationToken::new();
    let mut task = JoinSet::new();
    let stopped = stop.clone();
    task.spawn(async move {
        let router = router_for(&config, Access::Open);
        listener.serve(router, &config, stopped, Duration::from_secs(5)).await.unwrap();
    });
    let say = |trusted: &Arc<ClientConfig>| {
        let trusted = Arc::clone(trusted);
        tokio::task::spawn_blocking(move || request_over_tls(address, trusted))
    };
    let response = say(&first).await.unwrap().unwrap();
    assert!(
        response.starts_with("HTTP/1.1 200") && response.contains("strict-transport-security"),
        "{response}"
    );

    let second = write_certificate(folder.path());
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while say(&second).await.unwrap().is_err() {
        assert!(std::time::Instant::now() < deadline, "the new certificate is not served");
        tokio::task::yield_now().await;
    }
    assert!(say(&first).await.unwrap().is_err(), "the old one is no longer served");
    stop.cancel();
    task.join_next().await.unwrap().unwrap();
}

#[test]
fn error_of_an_unusable_certificate_names_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificate.pem");
    let named = path.display().to_string();
    let config =
        ApiConfig { tls_certificate: named.clone(), tls_key: named.clone(), ..small_config() };
    let error = || {
        let served = Listener::bind(&config.listen).unwrap().with_tls(&config);
        served.err().unwrap().to_string()
    };
    assert!(error().contains(&named) && error().contains("cannot read"), "{}", error());
    std::fs::write(&path, "no certificate").unwrap();
    assert!(error().contains(&named), "{}", error());
}
