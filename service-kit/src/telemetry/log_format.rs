//! Format of log lines: each line within a trace has its `trace_id`, and the fields of spans that are
//! meant for traces only are left out.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{
    DefaultVisitor, FormatEvent, FormatFields, JsonFields, JsonVisitor, Writer,
};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use super::traces::TraceOfSpan;

/// Prefix of the fields that only traces use, e.g. `otel.kind`.
const TRACE_FIELD_PREFIX: &str = "otel.";

/// Formats the fields of spans.
pub(super) struct SpanFields(pub(super) LogFormat);

impl<'writer> FormatFields<'writer> for SpanFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        match self.0 {
            LogFormat::Json => {
                let mut visitor = JsonVisitor::new(&mut writer);
                fields.record(&mut LogFields(&mut visitor));
                visitor.finish()
            }
            LogFormat::Text => {
                let mut visitor = DefaultVisitor::new(writer, true);
                fields.record(&mut LogFields(&mut visitor));
                visitor.finish()
            }
        }
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        match self.0 {
            LogFormat::Json => {
                let mut all =
                    FormattedFields::<JsonFields>::new(std::mem::take(&mut current.fields));
                JsonFields::new().add_fields(&mut all, fields)?;
                current.fields = all.fields;
                Ok(())
            }
            LogFormat::Text => {
                if !current.fields.is_empty() {
                    current.fields.push(' ');
                }
                self.format_fields(current.as_writer(), fields)
            }
        }
    }
}

/// Passes the fields of log lines on to a visitor.
struct LogFields<'a>(&'a mut dyn Visit);

impl Visit for LogFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !is_trace_field(field) {
            self.0.record_debug(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if !is_trace_field(field) {
            self.0.record_str(field, value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.record_u64(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.record_i64(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.record_bool(field, value);
    }
}

fn is_trace_field(field: &Field) -> bool {
    field.name().starts_with(TRACE_FIELD_PREFIX)
}

/// Adds `trace_id` to the lines of another format.
pub(super) struct WithTraceId<F> {
    pub(super) inner: F,
    pub(super) format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for WithTraceId<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let scope = context.event_scope().into_iter().flatten();
        let mut traces = scope.filter_map(|span| TraceOfSpan::find(&span.extensions()));
        let Some(trace) = traces.next() else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let trace_id = trace.trace_id();
        match self.format {
            LogFormat::Json => {
                let object = line.trim_end().strip_suffix('}').unwrap_or(&line);
                writeln!(writer, "{object},\"trace_id\":\"{trace_id}\"}}")
            }
            LogFormat::Text => writeln!(writer, "{} trace_id={trace_id}", line.trim_end()),
        }
    }
}
