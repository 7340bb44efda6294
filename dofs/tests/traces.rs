//! Traces over all processes of a system, and what a receiver that is away does not break.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::api::{Answer, Api, valid_order};
use testkit::command;
use testkit::process::{Dofs, Start};
use testkit::system::{System, sqlite_url, start_api_without_event_store};
use testkit::trace_receiver::{Kind, ReceiverBehaviour, Span, TraceReceiver};
use testkit::wait;
use testkit::warehouse::{Behaviour, Warehouse, closing_response};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// Trace and span of the client that places orders.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";
/// Trace of the operator who redrives an order.
const OPERATOR_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// Maximum time for a busy process to stop, spans included.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Number of projections: `orders` and `customer_orders`.
const PROJECTIONS: usize = 2;

/// Event store, API, worker and projector, each in its own process, with an HTTP gateway.
struct Site {
    api: Api,
    receiver: TraceReceiver,
    warehouse: Warehouse,
    store: String,
    _processes: [Dofs; 4],
    _data: TempDir,
}

impl Site {
    fn start() -> Self {
        let (receiver, warehouse) =
            (TraceReceiver::start(ReceiverBehaviour::Accept), Warehouse::start());
        let data = tempfile::tempdir().unwrap();
        let endpoint = receiver.endpoint();
        let start = |service: &str, arguments: &[&str]| {
            Start::new(BINARY, arguments)
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
                .env("OTEL_BSP_SCHEDULE_DELAY", "50")
                .env("OTEL_SERVICE_NAME", service)
        };
        let events = data.path().join("events");
        let arguments = ["node", "--data", events.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let mut node = start("dofs-node", &arguments).spawn();
        let store = node.node_url();
        let read_model = sqlite_url(data.path());
        let on_stores = |start: Start| {
            start
                .env("DOFS__EVENT_STORE__URL", &store)
                .env("DOFS__READ_MODEL__URL", &read_model)
                .env("DOFS__FULFILLMENT__GATEWAY", "http")
                .env("DOFS__FULFILLMENT__URL", warehouse.url())
                .env("DOFS__FULFILLMENT__BACKOFF_MS", "5")
        };
        let migrated = on_stores(start("dofs-migrate", &["migrate"])).spawn().wait_until_ended();
        assert!(migrated.success());
        let serve = |role: &str| {
            let arguments = ["serve", role, "--listen", "127.0.0.1:0"];
            on_stores(start(&format!("dofs-{role}"), &arguments)).spawn_api()
        };
        let ((api_process, api), (worker, _), (projector, _)) =
            (serve("api"), serve("worker"), serve("projector"));
        let processes = [api_process, worker, projector, node];
        Self { api, receiver, warehouse, store, _processes: processes, _data: data }
    }

    /// Waits until the projections of all appends of a trace are received, and returns the trace.
    fn wait_for_trace(&self, n_appends: usize) -> Vec<Span> {
        let is_projected = |span: &Span| self.projections_of(span) == PROJECTIONS;
        self.receiver.wait_for_trace(TRACE, "is projected", |spans| {
            let mut appends = find_all(spans, "send order");
            appends.retain(|append| is_projected(append));
            appends.len() == n_appends && spans.iter().any(|span| span.kind == Kind::Server)
        })
    }

    /// Returns the number of projections with a batch that is linked to an append.
    fn projections_of(&self, append: &Span) -> usize {
        let batches = self.receiver.spans();
        let linked = (append.trace_id.clone(), append.span_id.clone());
        let batches = batches.iter().filter(|span| span.links.contains(&linked));
        let names = batches.filter_map(|span| span.attributes.get("dofs.projection"));
        names.collect::<BTreeSet<_>>().len()
    }
}

fn place_in_trace(api: &Api, flags: &str) -> String {
    let traceparent = format!("00-{TRACE}-{CLIENT_SPAN}-{flags}");
    let request = api.request("POST", "/v1/orders").header("traceparent", traceparent);
    let placed = Api::send(request.json(&valid_order()));
    assert_eq!(placed.status, 202, "{placed:?}");
    placed.json()["order_id"].as_str().unwrap().to_owned()
}

fn find_all<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// Returns the spans with this name below a parent.
fn children<'a>(spans: &'a [Span], parent: &Span, name: &str) -> Vec<&'a Span> {
    let mut children = find_all(spans, name);
    children.retain(|span| span.parent_id == parent.span_id);
    children
}

#[track_caller]
fn only<'a>(spans: &[&'a Span]) -> &'a Span {
    assert_eq!(spans.len(), 1, "{spans:#?}");
    spans[0]
}

#[track_caller]
fn assert_span(span: &Span, service: &str, kind: Kind, attributes: &[(&str, &str)]) {
    assert_eq!((span.service.as_str(), span.kind), (service, kind), "{span:#?}");
    for (name, value) in attributes {
        assert_eq!(span.attributes.get(*name).map(String::as_str), Some(*value), "{span:#?}");
    }
}

fn event_metadata(api: &Api, id: &str, index: usize) -> Value {
    let history = api.get(&format!("/v1/orders/{id}/history")).json();
    history["events"][index]["metadata"].clone()
}

#[test]
fn one_order_is_one_trace_over_separate_processes() {
    let site = Site::start();
    let id = place_in_trace(&site.api, "01");
    site.api.wait_until_projected(&id);
    let spans = site.wait_for_trace(2);
    let stream = format!("order-{id}");

    let request = only(&find_all(&spans, "POST /v1/orders"));
    let attributes = [
        ("http.request.method", "POST"),
        ("http.route", "/v1/orders"),
        ("http.response.status_code", "202"),
    ];
    assert_span(request, "dofs-api", Kind::Server, &attributes);
    assert_eq!(request.parent_id, CLIENT_SPAN);

    let placed = only(&children(&spans, request, "send order"));
    let attributes = [
        ("order.id", id.as_str()),
        ("messaging.operation.type", "send"),
        ("messaging.destination.name", &stream),
        ("messaging.batch.message_count", "4"),
    ];
    assert_span(placed, "dofs-api", Kind::Producer, &attributes);

    let delivery = only(&children(&spans, placed, "process order"));
    let attributes = [
        ("order.id", id.as_str()),
        ("messaging.operation.type", "process"),
        ("messaging.consumer.group.name", "fulfillment"),
    ];
    assert_span(delivery, "dofs-worker", Kind::Consumer, &attributes);
    assert_eq!(delivery.links, [(TRACE.to_owned(), placed.span_id.clone())]);

    let call = only(&children(&spans, delivery, "call gateway"));
    let attributes = [("http.request.method", "POST"), ("http.response.status_code", "200")];
    assert_span(call, "dofs-worker", Kind::Client, &attributes);
    let received = site.warehouse.calls().pop().unwrap();
    assert_eq!(received.headers["traceparent"], format!("00-{TRACE}-{}-01", call.span_id));

    let fulfilled = only(&children(&spans, delivery, "send order"));
    let attributes = [("messaging.batch.message_count", "1")];
    assert_span(fulfilled, "dofs-worker", Kind::Producer, &attributes);
    assert_eq!(spans.len(), 5, "{spans:#?}");
    assert!(spans.iter().all(|span| !span.is_failed), "{spans:#?}");

    let batch = site.receiver.spans().into_iter().find(|span| span.name == "project orders");
    assert_span(&batch.unwrap(), "dofs-projector", Kind::Consumer, &[]);
    for (index, append) in [(0, placed), (3, placed), (4, fulfilled)] {
        let metadata = event_metadata(&site.api, &id, index);
        assert_eq!(metadata["$traceId"], TRACE, "{metadata}");
        assert_eq!(metadata["$spanId"], append.span_id, "{metadata}");
        assert_eq!(metadata["traceparent"], format!("00-{TRACE}-{}-01", append.span_id));
    }
    let all = format!("{:?}", site.receiver.spans());
    for private in ["cust-retail-001", "prod-widget-001", "127.0.0.1:"] {
        assert!(!all.contains(private), "{private} is in a span: {all}");
    }
    // The hashes of the chain cover the metadata with its trace.
    let environment = [("DOFS__EVENT_STORE__URL", site.store.as_str())];
    command::run(BINARY, &["audit", "verify"], &environment).success();
}

#[test]
fn redriven_order_stays_in_its_trace() {
    let site = Site::start();
    let broken = closing_response(400, &[], r#"{"permanent": true}"#);
    site.warehouse.set_for_next_calls(1, &Behaviour::Say(broken));
    let id = place_in_trace(&site.api, "01");
    assert_eq!(site.api.wait_until_projected(&id)["stage"], "dead_letter");
    let request = site.api.request("POST", &format!("/v1/orders/{id}/redrive"));
    let traceparent = format!("00-{OPERATOR_TRACE}-{CLIENT_SPAN}-01");
    let redriven = Api::send(request.header("traceparent", traceparent).json(&json!({})));
    assert_eq!(redriven.status, 202, "{redriven:?}");
    wait::until("the second attempt is fulfilled", || {
        let order = site.api.get(&format!("/v1/orders/{id}")).json();
        (order["status"] == "FULFILLED" && order["source"] == "table").then_some(())
    });
    let spans = site.wait_for_trace(4);

    // The store also delivers the parked message again, and the worker only acknowledges it.
    let mut failed = find_all(&spans, "process order");
    failed.retain(|delivery| delivery.is_failed);
    let failed = only(&failed);
    let call = only(&children(&spans, failed, "call gateway"));
    assert!(call.is_failed, "{call:#?}");
    assert_span(call, "dofs-worker", Kind::Client, &[("error.type", "permanent")]);
    let dead_lettered = only(&children(&spans, failed, "send order"));
    let requeued = only(&children(&spans, dead_lettered, "send order"));
    assert_span(requeued, "dofs-api", Kind::Producer, &[("order.id", &id)]);
    let second = only(&children(&spans, requeued, "process order"));
    assert!(!second.is_failed, "{second:#?}");

    let request =
        site.receiver.wait_for_trace(OPERATOR_TRACE, "has a request", |spans| !spans.is_empty());
    assert_eq!(request[0].name, "POST /v1/orders/{id}/redrive");
    assert_eq!(requeued.links, [(OPERATOR_TRACE.to_owned(), request[0].span_id.clone())]);
}

#[test]
fn last_spans_are_exported_at_shutdown() {
    let receiver = TraceReceiver::start(ReceiverBehaviour::Accept);
    let endpoint = format!("{}/v1/traces", receiver.endpoint());
    let environment = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=orders"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment.environment.name=test"),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
    ];
    let mut system = System::start(BINARY, &environment);
    let id = place_in_trace(&system.api, "01");
    system.api.wait_until_ended(&id);
    assert_eq!(receiver.spans().len(), 0);
    assert!(system.process.terminate().success());
    let spans = receiver.spans();
    assert_eq!(only(&find_all(&spans, "POST /v1/orders")).service, "shop");
    assert_eq!(find_all(&spans, "call gateway").len(), 1, "{spans:#?}");
    let (start_line, headers) = receiver.requests().pop().unwrap();
    assert!(start_line.starts_with("POST /v1/traces "), "{start_line}");
    assert_eq!(headers["x-team"], "orders");
}

#[test]
fn unavailable_receiver_affects_no_order_and_no_stop() {
    for receiving in [None, Some(ReceiverBehaviour::Fail(500)), Some(ReceiverBehaviour::Hang)] {
        let receiver = receiving.map(TraceReceiver::start);
        let endpoint = receiver.as_ref().map(TraceReceiver::endpoint);
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_deref().unwrap_or("http://127.0.0.1:1")),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0"),
        ];
        let mut system = System::start(BINARY, &environment);
        let ids: Vec<_> = (0..20).map(|_| place_in_trace(&system.api, "01")).collect();
        for id in &ids {
            assert_eq!(system.api.wait_until_ended(id)["status"], "FULFILLED");
        }
        if receiving != Some(ReceiverBehaviour::Hang) {
            wait::until("the outage is logged", || count_outages(&system).checked_sub(1));
        }
        let began = Instant::now();
        assert!(system.process.terminate().success());
        assert!(began.elapsed() < STOP_LIMIT, "{receiving:?}: {:?}", began.elapsed());
        let n_expected = usize::from(receiving != Some(ReceiverBehaviour::Hang));
        assert_eq!(count_outages(&system), n_expected, "{receiving:?}");
    }
}

fn count_outages(system: &System) -> usize {
    let log = system.process.log_lines();
    let text = |line: &Value| line["message"].as_str().map(str::to_owned).unwrap_or_default();
    log.iter().filter(|line| text(line).starts_with("Traces cannot be exported")).count()
}

#[test]
fn orders_that_are_not_sampled_send_no_spans() {
    let receiver = TraceReceiver::start(ReceiverBehaviour::Accept);
    let endpoint = receiver.endpoint();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0"),
    ];
    let mut system = System::start(BINARY, &environment);
    let ids = [system.api.place_valid_order(), place_in_trace(&system.api, "00")];
    for id in &ids {
        system.api.wait_until_projected(id);
        let metadata = event_metadata(&system.api, id, 4);
        // The decision and the trace of log lines reach the worker.
        assert!(metadata["traceparent"].as_str().unwrap().ends_with("-00"), "{metadata}");
        assert_eq!(metadata["$traceId"], Value::Null, "{metadata}");
    }
    let sampled = place_in_trace(&system.api, "01");
    system.api.wait_until_projected(&sampled);
    assert!(system.process.terminate().success());
    let spans = receiver.spans();
    assert_eq!(find_all(&spans, "POST /v1/orders").len(), 1, "{spans:#?}");
    let mut orders = find_all(&spans, "send order").into_iter();
    assert!(orders.all(|span| span.attributes["order.id"] == sampled), "{spans:#?}");
    let mut batches = find_all(&spans, "project orders").into_iter();
    assert!(batches.all(|batch| batch.links.iter().all(|(trace, _)| trace == TRACE)));
}

#[test]
fn log_lines_name_the_trace_without_an_exporter() {
    let system = System::start(BINARY, &[("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0")]);
    let id = place_in_trace(&system.api, "01");
    system.api.wait_until_ended(&id);
    for message in ["Order accepted", "Order fulfilled"] {
        let line = wait::until(message, || {
            let log = system.process.log_lines();
            log.into_iter().find(|line| line["message"] == message)
        });
        assert_eq!(line["trace_id"], TRACE, "{line}");
        assert_eq!(line["span"]["otel.kind"], Value::Null, "{line}");
    }
    let metadata = event_metadata(&system.api, &id, 4);
    assert_eq!(metadata["traceparent"], format!("00-{TRACE}-{CLIENT_SPAN}-01"));
}

#[test]
fn invalid_trace_settings_are_logged_and_ignored() {
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
    let system = System::start(BINARY, &environment);
    system.api.place_valid_order();
    let line = wait::until("the fault is logged", || {
        let log = system.process.log_lines();
        log.into_iter().find(|line| line["message"] == "Traces are off: invalid configuration")
    });
    assert!(line["error"].as_str().unwrap().contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{line}");
}

#[test]
fn problem_document_of_a_server_error_names_the_trace() {
    let data = tempfile::tempdir().unwrap();
    let (_process, api) = start_api_without_event_store(BINARY, data.path());
    let send = |method: &str, path: &str| -> Answer {
        let request = api.request(method, path).header("accept", "application/problem+json");
        let request = request.header("traceparent", format!("00-{TRACE}-{CLIENT_SPAN}-01"));
        Api::send(request.json(&valid_order()))
    };
    let failed = send("POST", "/v1/orders");
    assert_eq!(failed.status, 503, "{failed:?}");
    assert_eq!(failed.json()["trace_id"], TRACE);
    let refused = send("GET", "/nothing");
    assert_eq!((refused.status, &refused.json()["trace_id"]), (404, &Value::Null));
}
