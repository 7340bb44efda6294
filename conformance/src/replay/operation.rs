//! The operations of a scenario, and the answers that the recorded server gave.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One step of a scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Makes a call: sends messages, ends the request and waits for the status.
    Call(CompleteCall),
    /// Opens a call that later operations refer to.
    Open(OpenCall),
    /// Sends one message on an open call.
    Send(SendMessage),
    /// Ends the request of an open call. Responses may still follow.
    End(String),
    /// Acknowledges deliveries of a persistent subscription.
    Ack(Acknowledge),
    /// Negatively acknowledges deliveries of a persistent subscription.
    Nack(NegativeAcknowledge),
    /// Waits for responses.
    Wait(WaitForResponses),
    /// Waits until no response was received for a time.
    Quiet(WaitForSilence),
    /// Cancels a call, unless it has ended.
    Cancel(String),
    /// Compares what an open call has received.
    Look(CompareReceived),
    /// Waits for a fixed time.
    Pause(Pause),
    /// Sends an HTTP/1.1 request.
    Http(HttpRequest),
    /// Sends an HTTP/2 request that no gRPC library sends.
    Http2(Http2Request),
}

/// A call from its first message to its status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteCall {
    /// Service and method. `event_store.client.` is put in front unless the service begins with
    /// `=`.
    pub method: String,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The call's deadline.
    pub deadline_ms: Option<u64>,
    /// Maximum time until the status, after which the call is cancelled; 10 s if absent.
    pub limit_ms: Option<u64>,
    /// The request's messages.
    #[serde(default)]
    pub send: Vec<Value>,
    /// Repeats the call until the group is not reading.
    #[serde(default)]
    pub settled: bool,
    /// Repeats the call until its responses hold this number of events.
    pub until_events: Option<usize>,
    /// The recorded answer.
    pub expect: Option<Expectation>,
}

/// The beginning of a call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenCall {
    /// Name of the call for later operations.
    #[serde(rename = "as")]
    pub name: String,
    /// Service and method, as in [`CompleteCall`].
    pub method: String,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The call's deadline.
    pub deadline_ms: Option<u64>,
}

/// A message on an open call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// The call.
    pub to: String,
    /// The message.
    pub message: Value,
}

/// An acknowledgement.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledge {
    /// The call.
    pub to: String,
    /// Indexes of the call's events, counted from 0.
    pub deliveries: Vec<usize>,
}

/// A negative acknowledgement.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NegativeAcknowledge {
    /// The call.
    pub to: String,
    /// Indexes of the call's events, counted from 0.
    pub deliveries: Vec<usize>,
    /// Name or number of the protocol's `Action`.
    pub action: Value,
    /// The reason.
    pub reason: Option<String>,
}

/// A wait for responses. The scenario also continues when the time is over or the call has ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitForResponses {
    /// The call.
    #[serde(rename = "for")]
    pub call: String,
    /// A second call whose events count too.
    pub and: Option<String>,
    /// The condition to wait for.
    pub until: WaitCondition,
    /// Maximum time.
    pub at_most_ms: u64,
}

/// The condition of a [`WaitForResponses`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitCondition {
    /// This number of responses.
    Messages(usize),
    /// This number of events.
    Events(usize),
    /// The response that a subscription has caught up.
    CaughtUp,
    /// The end of the call.
    End,
}

/// A wait for silence.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitForSilence {
    /// The call.
    pub of: String,
    /// Time without a response.
    pub ms: u64,
}

/// A comparison of what an open call has received.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareReceived {
    /// The call.
    pub at: String,
    /// The recorded answer.
    pub expect: Expectation,
}

/// A wait for an action that the server takes by itself, or must not take.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Duration of the wait.
    pub ms: u64,
}

/// A request over HTTP/1.1.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRequest {
    /// Method and path.
    pub request: String,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// The recorded answer.
    pub expect: Expectation,
}

/// A request over HTTP/2.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http2Request {
    /// Method and path.
    pub request: String,
    /// All headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The DATA frames.
    #[serde(default)]
    pub data: Vec<DataFrame>,
    /// Whether the request stays open after the last frame.
    #[serde(default)]
    pub open: bool,
    /// Maximum time until the end of the response; 3 s if absent.
    pub limit_ms: Option<u64>,
    /// The recorded answer.
    pub expect: Expectation,
}

/// One DATA frame.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DataFrame {
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
pub struct Expectation {
    /// The step's description.
    pub step: String,
    /// The part of the answer that is compared.
    #[serde(default)]
    pub show: AnswerPart,
    /// The recorded answer, in the format of that part.
    pub answer: Value,
}

/// A part of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerPart {
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
