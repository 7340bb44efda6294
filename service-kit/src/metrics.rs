//! Metrics of every process: names, descriptions and recording functions of this crate's instruments.
//!
//! Without a [`Recorder`], recording has no effect.

mod recorder;
mod runtime;

use std::sync::LazyLock;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Gauge, Unit, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};

pub use recorder::Recorder;
pub use runtime::sample_runtime;

const BUILD_INFO: &str = "dofs_build_info";
const READY: &str = "dofs_ready";
const LOG_LINES_DROPPED: &str = "dofs_log_lines_dropped_total";
const CERTIFICATE_EXPIRY: &str = "dofs_tls_certificate_expiry_timestamp_seconds";
const LAST_SAMPLE: &str = "dofs_sample_last_success_timestamp_seconds";
const REQUEST_DURATION: &str = "http_server_request_duration_seconds";
const ACTIVE_REQUESTS: &str = "http_server_active_requests";

/// Route of requests that match no route: their paths are any text.
const UNMATCHED: &str = "unmatched";
/// Method of requests whose method is not one of HTTP's own.
const OTHER_METHOD: &str = "_OTHER";

static ACTIVE: LazyLock<Gauge> = LazyLock::new(|| gauge!(ACTIVE_REQUESTS));

/// A request whose response has not ended. Dropping it ends the request.
pub(crate) struct ActiveRequest(());

impl ActiveRequest {
    pub(crate) fn begin() -> Self {
        ACTIVE.increment(1.0);
        Self(())
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        ACTIVE.decrement(1.0);
    }
}

/// Records a response. `route` is the route that the request matched, never its path.
pub(crate) fn record_response(
    method: &Method,
    route: Option<&str>,
    status: StatusCode,
    duration: Duration,
) {
    histogram!(
        REQUEST_DURATION,
        "http_request_method" => method_label(method),
        "http_route" => route.unwrap_or(UNMATCHED).to_owned(),
        "http_response_status_code" => status.as_str().to_owned(),
    )
    .record(duration);
}

fn method_label(method: &Method) -> &'static str {
    const KNOWN: [(Method, &str); 7] = [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::DELETE, "DELETE"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::HEAD, "HEAD"),
        (Method::OPTIONS, "OPTIONS"),
    ];
    KNOWN.iter().find(|(known, _)| known == method).map_or(OTHER_METHOD, |(_, label)| label)
}

/// Publishes the version and the commit of this build.
pub fn set_build_info(version: &'static str, commit: &'static str) {
    gauge!(BUILD_INFO, "version" => version, "commit" => commit).set(1.0);
}

/// Publishes the readiness of a component: 1, 0.5 if degraded, 0 if unavailable.
pub(crate) fn set_ready(component: &str, readiness: f64) {
    gauge!(READY, "component" => component.to_owned()).set(readiness);
}

/// Publishes the time at which the served certificate expires, in seconds since 1970.
pub(crate) fn set_certificate_expiry(unix_seconds: i64) {
    gauge!(CERTIFICATE_EXPIRY).set(to_f64(unix_seconds));
}

/// Publishes when the sampled gauges of `source` were last read, in seconds since 1970.
pub fn note_sample(source: &'static str, unix_seconds: i64) {
    gauge!(LAST_SAMPLE, "source" => source).set(to_f64(unix_seconds));
}

fn set_log_lines_dropped(n_lines: u64) {
    counter!(LOG_LINES_DROPPED).absolute(n_lines);
}

/// Converts a number to the type of gauges.
#[expect(clippy::cast_precision_loss, reason = "a gauge above 2^53 may be imprecise")]
pub fn to_gauge(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 seconds")]
fn to_f64(unix_seconds: i64) -> f64 {
    unix_seconds as f64
}

fn describe() {
    describe_gauge!(BUILD_INFO, "Version and commit of the running program, always 1");
    describe_gauge!(READY, "Readiness of a component: 1, 0.5 if degraded, 0 if unavailable");
    describe_counter!(
        LOG_LINES_DROPPED,
        Unit::Count,
        "Log lines dropped because standard error was not read"
    );
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "Unix time at which the first certificate of the served chain expires"
    );
    describe_gauge!(
        LAST_SAMPLE,
        Unit::Seconds,
        "Unix time at which the sampled gauges of a source were last read"
    );
    describe_histogram!(
        REQUEST_DURATION,
        Unit::Seconds,
        "Time from the head of a request to the head of its response"
    );
    describe_gauge!(ACTIVE_REQUESTS, Unit::Count, "Requests whose responses have not ended");
    runtime::describe();
    ACTIVE.set(0.0);
    set_log_lines_dropped(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_share_one_label() {
        assert_eq!(method_label(&Method::DELETE), "DELETE");
        let invented = Method::from_bytes(b"PURGE-4711").unwrap();
        assert_eq!(method_label(&invented), OTHER_METHOD);
    }
}
