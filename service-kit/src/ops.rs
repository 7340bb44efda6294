//! The operations listener (`[ops]` in the configuration): `GET /metrics`, health checks, and the
//! log filter.

use std::future::{Ready, ready};
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::address::{HostPort, HostPortError};
use crate::auth::Access;
use crate::clock::Clock;
use crate::health::{self, Checks};
use crate::http::{ApiConfig, Routes, not_found, with_uncounted_edge};
use crate::metrics::Recorder;
use crate::problem::Problem;
use crate::telemetry;

/// Content type of the text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Settings of the operations listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpsConfig {
    pub listen: OpsListen,
}

/// Where the operations listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OpsListen {
    /// Nowhere: no listener and no metrics.
    Off,
    /// On loopback: on the port of the role, or on a free port if that one is taken.
    Auto,
    /// On this address.
    At(HostPort),
}

/// A text that is no setting of the operations listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}, `auto`, or nothing")]
pub struct OpsListenError(HostPortError);

impl FromStr for OpsListen {
    type Err = OpsListenError;

    fn from_str(text: &str) -> Result<Self, OpsListenError> {
        match text {
            "" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            address => address.parse().map(Self::At).map_err(OpsListenError),
        }
    }
}

impl TryFrom<String> for OpsListen {
    type Error = OpsListenError;

    fn try_from(text: String) -> Result<Self, OpsListenError> {
        text.parse()
    }
}

/// Returns the routes of the operations listener with the edge in front of them. `draining` is
/// cancelled when the process is about to stop.
///
/// The routes need no key. Requests of web pages and for other hosts are refused, as on the API's
/// listener.
pub fn routes(
    recorder: Recorder,
    checks: Arc<Checks>,
    draining: CancellationToken,
    config: &ApiConfig,
    clock: Clock,
) -> Router {
    let unlimited = Router::new().route("/metrics", get(get_metrics)).with_state(recorder);
    let log_filter = get(get_log_filter).put(set_log_filter).post(set_log_filter);
    let routes = Routes {
        protected: Router::new().route("/debug/log", log_filter).fallback(not_found),
        ownership: None,
        health: unlimited.merge(health::routes(checks)),
        draining,
    };
    with_uncounted_edge(routes, config, Access::Open, clock)
}

fn get_metrics(State(recorder): State<Recorder>) -> Ready<Response> {
    ready(([(CONTENT_TYPE, METRICS_TYPE)], recorder.render()).into_response())
}

fn get_log_filter() -> Ready<String> {
    ready(show_log_filter())
}

/// Replaces the log filter. The body is a filter in the syntax of `RUST_LOG`.
fn set_log_filter(filter: String) -> Ready<Result<String, Problem>> {
    let replaced = telemetry::set_log_filter(filter)
        .map_err(|error| Problem::application(StatusCode::BAD_REQUEST, error.to_string()));
    ready(replaced.map(|()| show_log_filter()))
}

fn show_log_filter() -> String {
    format!("{}\n", telemetry::log_filter().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_is_off_automatic_or_at_an_address() {
        assert_eq!("".parse(), Ok(OpsListen::Off));
        assert_eq!("auto".parse(), Ok(OpsListen::Auto));
        let address = "127.0.0.1:9610".parse().unwrap();
        assert_eq!("127.0.0.1:9610".parse(), Ok(OpsListen::At(address)));
        let error = "9610".parse::<OpsListen>().unwrap_err();
        let expected = "invalid address `9610`: expected host and port, e.g. `127.0.0.1:8080`, `auto`, or nothing";
        assert_eq!(error.to_string(), expected);
    }
}
