//! Traces: which trace a span belongs to, its links, and its attributes.
//!
//! A span is exported if it has the field `otel.kind`; all other spans are for log lines only. Without an
//! exporter, spans still carry the trace context of the request or event that began them, so that log
//! lines and events name its trace. `docs/tracing.md` describes the spans of an order.

mod export;

use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use tracing::{Metadata, Span, dispatcher};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::{Extensions, LookupSpan};

use crate::trace_context::TraceContext;

pub(super) use export::trace_layer;
pub use export::{TraceExport, flush_traces, is_exporting};
pub use opentelemetry::Value as AttributeValue;

/// Field of the spans that are exported.
const KIND_FIELD: &str = "otel.kind";

/// Maximum number of links of a span.
pub const MAX_LINKS: usize = 128;

/// Trace context of a span, as an extension of it.
pub(super) struct TraceOfSpan(TraceContext);

impl TraceOfSpan {
    pub(super) fn find(extensions: &Extensions<'_>) -> Option<TraceContext> {
        extensions.get().map(|Self(context)| *context)
    }
}

/// Returns whether a span is exported.
pub(super) fn is_trace_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.fields().field(KIND_FIELD).is_some()
}

/// Starts a span in the trace of `origin`, and returns its trace context. If the current span belongs to
/// the same trace, it is the parent; otherwise `origin` is, and the current span is linked. Without an
/// `origin`, the span is a child of the current span, or begins a trace.
///
/// Without an exporter, returns the context of `origin` or of the current span.
pub fn continue_trace(span: &Span, origin: Option<TraceContext>) -> Option<TraceContext> {
    let current = current_trace();
    let parent = origin.filter(|origin| !current.is_some_and(|own| own.is_same_trace(*origin)));
    if is_exporting()
        && let Some(parent) = parent
    {
        let context = opentelemetry::Context::new();
        // An error means that the span has begun already, or is disabled.
        drop(span.set_parent(context.with_remote_span_context(to_span_context(parent))));
        link_spans(span, current);
    }
    let context = started_context(span).or(parent).or(current)?;
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        registry.span(id)?.extensions_mut().replace(TraceOfSpan(context))
    });
    Some(context)
}

/// Returns the trace context of the current span; `None` outside of a trace.
pub fn current_trace() -> Option<TraceContext> {
    dispatcher::get_default(|dispatch| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        let span = registry.span(dispatch.current_span().id()?)?;
        span.scope().find_map(|span| TraceOfSpan::find(&span.extensions()))
    })
}

/// Links a span that has not begun to spans of other traces, at most [`MAX_LINKS`].
pub fn link_spans(span: &Span, linked: impl IntoIterator<Item = TraceContext>) {
    if is_exporting() {
        for context in linked.into_iter().take(MAX_LINKS) {
            span.add_link(to_span_context(context));
        }
    }
}

/// Sets attributes of a span that is recorded. They are in the trace only, not in log lines. Attributes
/// must not have personal data: no customer, no content of an order, no address of a client.
pub fn set_attributes<const N: usize>(
    span: &Span,
    context: Option<TraceContext>,
    attributes: impl FnOnce() -> [(&'static str, AttributeValue); N],
) {
    if is_exporting() && context.is_some_and(TraceContext::is_sampled) {
        for (name, value) in attributes() {
            span.set_attribute(name, value);
        }
    }
}

/// Sets attributes of the current span; see [`set_attributes`].
pub fn set_current_attributes<const N: usize>(
    attributes: impl FnOnce() -> [(&'static str, AttributeValue); N],
) {
    if is_exporting() {
        set_attributes(&Span::current(), current_trace(), attributes);
    }
}

/// Marks a span as failed. `error_type` is one of few values, e.g. a status or the class of an error.
pub fn mark_failed(span: &Span, error_type: impl Into<AttributeValue>) {
    if is_exporting() {
        span.set_attribute("error.type", error_type);
        span.set_status(Status::error(""));
    }
}

/// Returns the context of an exported span, and so starts it; `None` if the span is not exported.
fn started_context(span: &Span) -> Option<TraceContext> {
    if !is_exporting() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let trace_id = u128::from_be_bytes(context.trace_id().to_bytes());
    let span_id = u64::from_be_bytes(context.span_id().to_bytes());
    TraceContext::new(trace_id, span_id, context.trace_flags().to_u8())
}

fn to_span_context(context: TraceContext) -> SpanContext {
    let (trace_id, span_id, flags) = context.parts();
    let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
    SpanContext::new(trace_id, span_id, TraceFlags::new(flags), true, TraceState::NONE)
}
