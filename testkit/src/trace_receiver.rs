//! A receiver of traces (OTLP over http/protobuf), with faults on demand.

mod otlp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use prost::Message;
use service_kit::mutex::lock;

use crate::http_server::{Exchange, Reply, Request, Server, format_response};
use crate::wait;
use otlp::{ExportTraceServiceRequest, KeyValue, Value};

/// How the receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiverBehaviour {
    /// Takes all spans.
    Accept,
    /// Answers with this status.
    Fail(u16),
    /// Never answers.
    Hang,
}

/// The kinds of spans, by their numbers in OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Unspecified,
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::Internal,
        Self::Server,
        Self::Client,
        Self::Producer,
        Self::Consumer,
    ];

    fn from_number(number: i32) -> Self {
        let index = usize::try_from(number).unwrap_or_default();
        Self::ALL.get(index).copied().unwrap_or(Self::Unspecified)
    }
}

/// A received span. Ids are in hexadecimal.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name` of the process that sent the span.
    pub service: String,
    /// `process.pid` of that process.
    pub process: String,
    pub trace_id: String,
    pub span_id: String,
    /// Empty if the span has no parent.
    pub parent_id: String,
    pub name: String,
    pub kind: Kind,
    pub attributes: BTreeMap<String, String>,
    /// Trace id and span id of each linked span.
    pub links: Vec<(String, String)>,
    pub is_failed: bool,
}

/// A running receiver. Stopped when dropped.
pub struct TraceReceiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: Server,
}

struct Shared {
    behaviour: Mutex<ReceiverBehaviour>,
    spans: Mutex<Vec<Span>>,
    /// Start line and headers of each request.
    requests: Mutex<Vec<(String, BTreeMap<String, String>)>>,
}

impl TraceReceiver {
    /// Starts a receiver on a free port.
    pub fn start(behaviour: ReceiverBehaviour) -> Self {
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            spans: Mutex::default(),
            requests: Mutex::default(),
        });
        let handler = Arc::clone(&shared);
        let handle =
            move |request: &Request, exchange: &Exchange| handler.handle(request, exchange);
        let server = Server::start("127.0.0.1:0", Arc::new(handle));
        Self { address: server.address(), shared, _server: server }
    }

    /// Returns the value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set_behaviour(&self, behaviour: ReceiverBehaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Returns the spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.shared.spans).clone()
    }

    /// Returns start line and headers of each request. Names of headers are in lower case.
    pub fn requests(&self) -> Vec<(String, BTreeMap<String, String>)> {
        lock(&self.shared.requests).clone()
    }

    /// Waits until the spans of a trace are as described, and returns the spans of the trace.
    #[track_caller]
    pub fn wait_for_trace(
        &self,
        trace_id: &str,
        what: &str,
        is_complete: impl Fn(&[Span]) -> bool,
    ) -> Vec<Span> {
        wait::until(&format!("trace {trace_id} {what}"), || {
            let mut spans = self.spans();
            spans.retain(|span| span.trace_id == trace_id);
            is_complete(&spans).then_some(spans)
        })
    }
}

impl Shared {
    fn handle(&self, request: &Request, exchange: &Exchange) -> Reply {
        lock(&self.requests).push((request.start_line.clone(), request.headers.clone()));
        let behaviour = *lock(&self.behaviour);
        match behaviour {
            ReceiverBehaviour::Accept => {}
            ReceiverBehaviour::Fail(status) => {
                return Reply::Respond(format_response(status, &[], ""));
            }
            ReceiverBehaviour::Hang => {
                exchange.wait_for_stop();
                return Reply::Close(Vec::new());
            }
        }
        match ExportTraceServiceRequest::decode(request.body.as_slice()) {
            Ok(export) => {
                lock(&self.spans).extend(convert(export));
                let headers = [("content-type", "application/x-protobuf")];
                Reply::Respond(format_response(200, &headers, ""))
            }
            Err(error) => Reply::Respond(format_response(400, &[], &error.to_string())),
        }
    }
}

fn convert(export: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in export.resource_spans {
        let resource = to_map(of_resource.resource.unwrap_or_default().attributes);
        let value = |name: &str| resource.get(name).cloned().unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                service: value("service.name"),
                process: value("process.pid"),
                trace_id: hex::encode(&span.trace_id),
                span_id: hex::encode(&span.span_id),
                parent_id: hex::encode(&span.parent_span_id),
                name: span.name,
                kind: Kind::from_number(span.kind),
                attributes: to_map(span.attributes),
                links: span
                    .links
                    .iter()
                    .map(|link| (hex::encode(&link.trace_id), hex::encode(&link.span_id)))
                    .collect(),
                is_failed: span.status.is_some_and(|status| status.code == 2),
            });
        }
    }
    spans
}

fn to_map(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let to_text = |value: Value| match value {
        Value::String(text) => text,
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
    };
    attributes
        .into_iter()
        .map(|attribute| {
            let value = attribute.value.and_then(|value| value.value);
            (attribute.key, value.map(to_text).unwrap_or_default())
        })
        .collect()
}
