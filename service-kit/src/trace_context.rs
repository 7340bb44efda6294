//! W3C trace context: the trace that a request or an event belongs to, and its parent span.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};

/// Request header with the trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Length of each part of a `traceparent`: version, trace id, span id and flags.
const PART_LENGTHS: [usize; 4] = [2, 32, 16, 2];
/// Version that the specification reserves.
const INVALID_VERSION: &str = "ff";
/// Flag of a trace whose spans are recorded.
const SAMPLED: u8 = 1;

/// The trace id, the id of one span of that trace, and the flags. Neither id is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// Creates the context of a span; `None` if one of the ids is zero.
    pub fn new(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags })
    }

    /// Parses the value of a `traceparent` header; `None` if it is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let [version, trace_id, span_id, flags] = PART_LENGTHS.map(|length| {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            parts.next().filter(|part| part.len() == length && part.bytes().all(is_digit))
        });
        if parts.next().is_some() || version? == INVALID_VERSION {
            return None;
        }
        let trace_id = u128::from_str_radix(trace_id?, 16).ok()?;
        let span_id = u64::from_str_radix(span_id?, 16).ok()?;
        Self::new(trace_id, span_id, u8::from_str_radix(flags?, 16).ok()?)
    }

    /// Returns the trace context of a request; `None` if it has none, or not a valid one.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
    }

    /// Returns the trace id in hexadecimal.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Returns the span id in hexadecimal.
    pub fn span_id(self) -> String {
        format!("{:016x}", self.span_id)
    }

    /// Returns whether the spans of the trace are recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Returns whether another span belongs to the same trace.
    pub fn is_same_trace(self, other: Self) -> bool {
        self.trace_id == other.trace_id
    }

    /// Returns trace id, span id and flags.
    pub(crate) fn parts(self) -> (u128, u64, u8) {
        (self.trace_id, self.span_id, self.flags)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn valid_traceparent_is_parsed_and_displayed() {
        let context = TraceContext::parse(VALID).unwrap();
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id(), "b7ad6b7169203331");
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), VALID);
        let unsampled = TraceContext::parse(&VALID.replace("-01", "-02")).unwrap();
        assert!(!unsampled.is_sampled() && unsampled.is_same_trace(context));
    }

    #[test]
    fn invalid_traceparent_is_ignored() {
        for invalid in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(invalid), None, "{invalid}");
        }
    }
}
