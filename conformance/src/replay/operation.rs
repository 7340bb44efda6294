//! The operations of a scenario, and the answers that the recorded server gave.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One step of a scenario. `to`, `of` and `at` name an open call; `deliveries` are indexes of its events,
/// counted from 0.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Operation {
    /// Makes a call: sends messages, ends the request and waits for the status.
    Call(CompleteCall),
    /// Opens a call that later operations refer to.
    Open(OpenCall),
    /// Sends one message on an open call.
    Send { to: String, message: Value },
    /// Ends the request of an open call. Responses may still follow.
    End(String),
    /// Acknowledges deliveries of a persistent subscription.
    Ack { to: String, deliveries: Vec<usize> },
    /// Negatively acknowledges deliveries of a persistent subscription.
    Nack {
        to: String,
        deliveries: Vec<usize>,
        /// Name or number of the protocol's `Action`.
        action: Value,
        #[serde(default)]
        reason: String,
    },
    /// Waits for responses.
    Wait(WaitForResponses),
    /// Waits until no response was received for a time.
    Quiet { of: String, ms: u64 },
    /// Cancels a call, unless it has ended.
    Cancel(String),
    /// Compares what an open call has received.
    Look { at: String, expect: Expectation },
    /// Waits for an action that the server takes by itself, or must not take.
    Pause { ms: u64 },
    /// Sends an HTTP/1.1 request.
    Http(HttpRequest),
    /// Sends an HTTP/2 request that no gRPC library sends.
    Http2(Http2Request),
}

/// A call from its first message to its status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteCall {
    /// Service and method. `event_store.client.` is put in front unless the service begins with
    /// `=`.
    pub(super) method: String,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) deadline_ms: Option<u64>,
    /// Maximum time until the status, after which the call is cancelled; 10 s if absent.
    pub(super) limit_ms: Option<u64>,
    /// The request's messages.
    #[serde(default)]
    pub(super) send: Vec<Value>,
    /// Repeats the call until the group is not reading.
    #[serde(default)]
    pub(super) settled: bool,
    /// Repeats the call until its responses hold this number of events.
    pub(super) until_events: Option<usize>,
    pub(super) expect: Option<Expectation>,
}

/// The beginning of a call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenCall {
    /// Name of the call for later operations.
    #[serde(rename = "as")]
    pub(super) name: String,
    /// Service and method, as in [`CompleteCall`].
    pub(super) method: String,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) deadline_ms: Option<u64>,
}

/// A wait for responses. The scenario also continues when the time is over or the call has ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitForResponses {
    #[serde(rename = "for")]
    pub(super) call: String,
    /// A second call whose events count too.
    pub(super) and: Option<String>,
    pub(super) until: WaitCondition,
    pub(super) at_most_ms: u64,
}

/// The condition of a [`WaitForResponses`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WaitCondition {
    /// This number of responses.
    Messages(usize),
    /// This number of events.
    Events(usize),
    /// The response that a subscription has caught up.
    CaughtUp,
    /// The end of the call.
    End,
}

/// A request over HTTP/1.1.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpRequest {
    /// Method and path.
    pub(super) request: String,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: String,
    pub(super) expect: Expectation,
}

/// A request over HTTP/2.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http2Request {
    /// Method and path.
    pub(super) request: String,
    /// All headers.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// The DATA frames.
    #[serde(default)]
    pub(super) data: Vec<DataFrame>,
    /// Whether the request stays open after the last frame.
    #[serde(default)]
    pub(super) open: bool,
    /// Maximum time until the end of the response; 3 s if absent.
    pub(super) limit_ms: Option<u64>,
    pub(super) expect: Expectation,
}

/// One DATA frame.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum DataFrame {
    /// These bytes, in hexadecimal.
    Raw(String),
    /// A framed message. Flag and length need not match the bytes.
    Message {
        /// The message as JSON or bytes. Its type is the request of the path's method, or of
        /// `streams.Streams/Read` for other paths.
        content: Value,
        /// The compression flag.
        #[serde(default)]
        flag: u8,
        /// The length in the frame's header; the true length if absent.
        length: Option<u32>,
    },
}

/// The answer of the recorded server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    /// The step's description.
    pub(super) step: String,
    /// The part of the answer that is compared.
    #[serde(default)]
    pub(super) show: AnswerPart,
    /// The recorded answer, in the format of that part.
    pub(super) answer: Value,
}

/// A part of an answer.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AnswerPart {
    /// Responses and status.
    #[default]
    All,
    /// Responses.
    Messages,
    /// The status.
    Status,
    /// The kind of each response, and the status.
    Kinds,
    /// The revision of each event, all other responses, and the status.
    Revisions,
    /// Status code, exception, and the kind of each response.
    Outcome,
    /// Revision and retry count of each delivery.
    Deliveries,
    /// The statistics of a persistent subscription, and the status.
    Group,
    /// Where a persistent subscription started, and the status.
    StartFrom,
}
