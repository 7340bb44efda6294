//! Export of spans over OTLP (http/protobuf), configured by the standard `OTEL_*` variables.
//!
//! A receiver that is away or slow affects nothing but its spans: they wait in a bounded queue, and
//! spans that do not fit into the queue are dropped.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{Request, Response, Uri};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TracerProvider};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Sampler, SamplingResult, SdkTracerProvider, ShouldSample,
};
use reqwest::blocking::Client;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};

use super::is_trace_span;
use crate::address::is_loopback;
use crate::error::Chain;

/// Endpoint of the traces, by precedence: the first is complete, to the second a path is added.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const ENVIRONMENT: &str = "DOFS_ENV";

const DEFAULT_SERVICE_NAME: &str = "dofs";
/// Default of `OTEL_EXPORTER_OTLP_TIMEOUT`, as the specification says.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Provider of the exported spans; empty if traces are off. Global like the subscriber.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Where spans are sent, and which.
#[derive(Debug, Clone)]
pub struct TraceExport {
    endpoint: Uri,
    timeout: Duration,
    sampler: OrderSampler,
    environment: Option<String>,
    service: Option<String>,
}

/// An `OTEL_*` variable with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {variable} `{value}`: expected {expected}")]
pub struct InvalidVariable {
    variable: &'static str,
    value: String,
    expected: &'static str,
}

impl TraceExport {
    /// Reads the `OTEL_*` variables; `None` if they name no endpoint or turn traces off.
    ///
    /// # Errors
    /// [`InvalidVariable`] if a value cannot be used.
    pub fn from_environment(
        variables: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, InvalidVariable> {
        let find = |names: &[&'static str]| {
            let mut values = names.iter().filter_map(|name| {
                let value = variables.get(*name).map(|value| value.trim())?;
                (!value.is_empty()).then(|| (*name, value.to_owned()))
            });
            values.next()
        };
        let is_off = find(&[DISABLED]).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"))
            || find(&[EXPORTER]).is_some_and(|(_, value)| value == "none");
        let Some(endpoint) = find(&ENDPOINTS).filter(|_| !is_off) else { return Ok(None) };
        check_value(find(&PROTOCOLS), "`http/protobuf`", |value| {
            (value == "http/protobuf").then_some(())
        })?;
        let timeout = check_value(find(&TIMEOUTS), "milliseconds", |value| {
            Some(Duration::from_millis(value.parse().ok()?))
        })?;
        let ratio = check_value(find(&[SAMPLER_RATIO]), "a number from 0 to 1", |value| {
            value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
        })?;
        let sampler = check_value(find(&[SAMPLER]), "e.g. `parentbased_traceidratio`", |name| {
            OrderSampler::from_name(name, ratio)
        })?;
        let expected = "an address, e.g. `http://localhost:4318`";
        let endpoint = check_value(Some(endpoint), expected, |value| {
            let is_http = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
            value.parse().ok().filter(|uri| is_http(uri) && uri.host().is_some())
        })?;
        Ok(endpoint.map(|endpoint| Self {
            endpoint,
            timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
            sampler: sampler.unwrap_or_else(|| OrderSampler::parent_based(ratio)),
            environment: find(&[ENVIRONMENT]).map(|(_, name)| name),
            service: find(&[SERVICE_NAME]).map(|(_, name)| name),
        }))
    }

    fn start(self) -> Result<SdkTracerProvider, String> {
        let client = ReceiverClient::new(&self.endpoint, self.timeout)?;
        // Endpoint and headers are read from the variables by the exporter itself.
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| Chain(&error).to_string())?;
        // Later attributes override earlier ones. The detector reads `OTEL_RESOURCE_ATTRIBUTES`.
        let service = self.service.map(|name| KeyValue::new("service.name", name));
        let resource = Resource::builder_empty()
            .with_attributes(process_attributes(self.environment))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(service)
            .build();
        Ok(SdkTracerProvider::builder()
            .with_sampler(self.sampler)
            .with_resource(resource)
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .build())
    }
}

/// Returns the value of a variable, parsed; `None` if it is not set.
fn check_value<T>(
    given: Option<(&'static str, String)>,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, InvalidVariable> {
    let Some((variable, value)) = given else { return Ok(None) };
    match parse(&value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(InvalidVariable { variable, value, expected }),
    }
}

/// Returns the attributes that describe this process in its traces.
fn process_attributes(environment: Option<String>) -> Vec<KeyValue> {
    let environment = environment.map(|name| KeyValue::new("deployment.environment.name", name));
    let own = [
        KeyValue::new("service.name", DEFAULT_SERVICE_NAME),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    own.into_iter().chain(environment).collect()
}

/// Returns whether spans are exported.
pub fn is_exporting() -> bool {
    PROVIDER.get().is_some()
}

/// Starts the export of spans, and returns the layer that makes them. An export that cannot start is
/// logged: it must not stop the process.
pub(in crate::telemetry) fn trace_layer(
    export: Option<TraceExport>,
) -> (Option<impl Layer<Registry>>, Option<String>) {
    let (provider, error) = match export.map(TraceExport::start) {
        Some(Ok(provider)) => (Some(PROVIDER.get_or_init(|| provider)), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let layer = provider.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("dofs"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            // Nothing reads the context of OpenTelemetry: the parent is the current span.
            .with_context_activation(false)
            .with_filter(filter_fn(is_trace_span))
    });
    (layer, error)
}

/// Exports the spans that have ended, within `timeout`, and stops the export.
pub fn flush_traces(timeout: Duration) {
    if let Some(provider) = PROVIDER.get() {
        // An error means that the receiver is away or slow: its last spans are lost.
        drop(provider.shutdown_with_timeout(timeout));
    }
}

/// The configured sampler. If it is parent-based, a span without a parent that has links is recorded if
/// one of the linked spans is: a batch of events belongs to the traces of its orders.
#[derive(Debug, Clone)]
struct OrderSampler {
    sampler: Sampler,
    follows_links: bool,
}

impl OrderSampler {
    /// Returns the sampler with a name of the specification; `None` if there is no such sampler.
    fn from_name(name: &str, ratio: Option<f64>) -> Option<Self> {
        let (name, follows_links) = match name.strip_prefix("parentbased_") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let sampler = match name {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(ratio.unwrap_or(1.0)),
            _ => return None,
        };
        let is_parent_based = follows_links;
        let sampler =
            if is_parent_based { Sampler::ParentBased(Box::new(sampler)) } else { sampler };
        Some(Self { sampler, follows_links })
    }

    /// Returns the default sampler: as the parent says, else this part of all traces.
    fn parent_based(ratio: Option<f64>) -> Self {
        let root = Sampler::TraceIdRatioBased(ratio.unwrap_or(1.0));
        Self { sampler: Sampler::ParentBased(Box::new(root)), follows_links: true }
    }
}

impl ShouldSample for OrderSampler {
    fn should_sample(
        &self,
        parent: Option<&opentelemetry::Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let has_parent = parent.is_some_and(|parent| parent.span().span_context().is_valid());
        let is_linked = links.iter().any(|link| link.span_context.is_sampled());
        let sampler = if self.follows_links && is_linked && !has_parent {
            &Sampler::AlwaysOn
        } else {
            &self.sampler
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// The HTTP client of the exporter. Logs when the receiver becomes unreachable, and when it is back.
#[derive(Debug)]
struct ReceiverClient {
    client: Client,
    is_away: AtomicBool,
}

impl ReceiverClient {
    fn new(endpoint: &Uri, timeout: Duration) -> Result<Self, String> {
        let mut client = Client::builder().timeout(timeout);
        // A proxy named by HTTP_PROXY has another loopback interface than this machine.
        if endpoint.host().is_some_and(is_loopback) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| Chain(&error).to_string())?;
        Ok(Self { client, is_away: AtomicBool::new(false) })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
        let response = self.client.execute(request.try_into()?)?;
        let status = response.status();
        let mut answer = Response::new(response.bytes()?);
        *answer.status_mut() = status;
        Ok(answer)
    }

    /// Logs the first failure of an outage, and the first success after it.
    fn note_outcome(&self, failure: Option<String>) {
        let was_away = self.is_away.swap(failure.is_some(), Ordering::AcqRel);
        match failure {
            Some(error) if !was_away => {
                tracing::warn!(
                    error,
                    "Traces cannot be exported: their receiver does not take them"
                );
            }
            None if was_away => tracing::info!("Traces are exported again"),
            Some(_) | None => {}
        }
    }
}

#[async_trait]
impl HttpClient for ReceiverClient {
    /// Sends a request. Blocks, because the exporter has a thread of its own, without a runtime.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let outcome = self.send(request).map_err(reqwest::Error::without_url);
        self.note_outcome(match &outcome {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("status {}", response.status())),
            Err(error) => Some(Chain(error).to_string()),
        });
        Ok(outcome?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<TraceExport>, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables = variables.iter().map(owned).collect();
        TraceExport::from_environment(&variables).map_err(|error| error.to_string())
    }

    #[test]
    fn traces_are_off_without_an_endpoint() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap().is_none());
        assert!(read(&[endpoint, ("OTEL_SDK_DISABLED", "True")]).unwrap().is_none());
        assert!(read(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
        assert!(read(&[endpoint, ("OTEL_SDK_DISABLED", "false")]).unwrap().is_some());
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/v1/traces");
        assert_eq!(read(&[endpoint, own]).unwrap().unwrap().endpoint, own.1);
    }

    #[test]
    fn invalid_variable_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ] {
            let error = read(&[endpoint, (name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("invalid {name} `{value}`: expected ")), "{error}");
        }
    }

    #[test]
    fn sampler_follows_parent_then_links_then_ratio() {
        let sample = |sampler: &OrderSampler, parent: Option<bool>, link: Option<bool>| {
            let context = |is_sampled: bool| {
                let id = crate::trace_context::TraceContext::new(7, 8, u8::from(is_sampled));
                super::super::to_span_context(id.unwrap())
            };
            let parent = parent.map(|is_sampled| {
                opentelemetry::Context::new().with_remote_span_context(context(is_sampled))
            });
            let links: Vec<_> = link
                .map(|is_sampled| Link::with_context(context(is_sampled)))
                .into_iter()
                .collect();
            let trace_id = TraceId::from(u128::MAX);
            let result = sampler.should_sample(
                parent.as_ref(),
                trace_id,
                "a",
                &SpanKind::Consumer,
                &[],
                &links,
            );
            result.decision == opentelemetry_sdk::trace::SamplingDecision::RecordAndSample
        };
        let none = OrderSampler::parent_based(Some(0.0));
        assert!(sample(&none, Some(true), None) && sample(&none, None, Some(true)));
        assert!(!sample(&none, None, None) && !sample(&none, None, Some(false)));
        assert!(!sample(&none, Some(false), Some(true)));
        assert!(sample(&OrderSampler::parent_based(None), None, None));
        let off = OrderSampler::from_name("always_off", None).unwrap();
        assert!(!sample(&off, Some(true), None) && !sample(&off, None, Some(true)));
    }
}
