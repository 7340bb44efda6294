//! The operations of a scenario, and the answers that the recorded server gave.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One step of a scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Sends messages, ends the request and waits until the call is over.
    Call(CompleteCall),
    /// Opens a call that later operations refer to.
    Open(OpenCall),
    /// Sends one message on an open call.
    Send(SendMessage),
    /// Ends the request of an open call; its responses go on.
    End(String),
    /// Acknowledges deliveries of a persistent subscription.
    Ack(Acknowledge),
    /// Refuses deliveries of a persistent subscription.
    Nack(Refuse),
    /// Waits for responses.
    Wait(Wait),
    /// Waits until no response has come for a time.
    Quiet(Quiet),
    /// Gives a call up, unless it is over.
    Cancel(String),
    /// Compares what has come on an open call.
    Look(Look),
    /// Waits.
    Pause(Pause),
    /// Sends an HTTP/1.1 request.
    Http(HttpRequest),
    /// Sends an HTTP/2 request as no gRPC library would.
    Http2(Http2Request),
}

/// A call from its first message to its status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteCall {
    /// Service and method, without `event_store.client.` unless the service begins with `=`.
    pub method: String,
    /// Headers sent along.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The call's deadline.
    pub deadline_ms: Option<u64>,
    /// How long to wait for the status before the call is given up; 10 s if absent.
    pub limit_ms: Option<u64>,
    /// The request's messages.
    #[serde(default)]
    pub send: Vec<Value>,
    /// Repeats the call until a group has read what is there.
    #[serde(default)]
    pub settled: bool,
    /// Repeats the call until its responses hold so many events.
    pub until_events: Option<usize>,
    /// The recorded answer.
    pub expect: Option<Expectation>,
}

/// The beginning of a call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenCall {
    /// What later operations call it.
    #[serde(rename = "as")]
    pub name: String,
    /// Service and method, as in [`CompleteCall`].
    pub method: String,
    /// Headers sent along.
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
    /// Which of the call's events, counted from 0.
    pub deliveries: Vec<usize>,
}

/// A negative acknowledgement.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    /// The call.
    pub to: String,
    /// Which of the call's events, counted from 0.
    pub deliveries: Vec<usize>,
    /// The action: a name or number of the protocol's `Action`.
    pub action: Value,
    /// The reason given.
    pub reason: Option<String>,
}

/// A wait for responses. The scenario continues when the time is over or the call has ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The call.
    #[serde(rename = "for")]
    pub call: String,
    /// A second call whose events count too.
    pub and: Option<String>,
    /// What to wait for.
    pub until: Until,
    /// The longest wait.
    pub at_most_ms: u64,
}

/// What a [`Wait`] waits for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// So many responses.
    Messages(usize),
    /// So many events.
    Events(usize),
    /// The response that a subscription has caught up.
    CaughtUp,
    /// The end of the call.
    End,
}

/// A wait for silence.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    /// The call.
    pub of: String,
    /// How long nothing must have come.
    pub ms: u64,
}

/// A comparison of an open call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// The call.
    pub at: String,
    /// The recorded answer.
    pub expect: Expectation,
}

/// A wait for time to pass: for what the server does by itself, or must not do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// How long.
    pub ms: u64,
}

/// A request over HTTP/1.1.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRequest {
    /// Method and path.
    pub request: String,
    /// Headers sent along.
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
    pub data: Vec<Data>,
    /// Leaves the request open behind the last frame.
    #[serde(default)]
    pub open: bool,
    /// How long to wait for the end of the response; 3 s if absent.
    pub limit_ms: Option<u64>,
    /// The recorded answer.
    pub expect: Expectation,
}

/// One DATA frame.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Data {
    /// These bytes, in hexadecimal.
    Raw(String),
    /// A message of gRPC: a flag, a length, and bytes that need not be what those two say.
    Message {
        /// The message as JSON, or its bytes: a request of the path's method, or of
        /// `streams.Streams/Read` if the path is not a method's.
        content: Value,
        /// The compression flag.
        #[serde(default)]
        flag: u8,
        /// The length that the frame claims; the true one if absent.
        length: Option<u32>,
    },
}

/// What the recorded server answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The step's description.
    pub step: String,
    /// Which part of the answer counts.
    #[serde(default)]
    pub show: View,
    /// The recorded answer, in the form of that part.
    pub answer: Value,
}

/// A part of what came on a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Responses and status.
    #[default]
    All,
    /// Responses.
    Messages,
    /// The status.
    Status,
    /// The kind of each response, and the status.
    Kinds,
    /// The revision of each event, other responses whole, and the status.
    Revisions,
    /// Status code, exception, and the kind of each response.
    Outcome,
    /// Revision and retry count of each delivery.
    Deliveries,
    /// The counts of a persistent subscription, and the status.
    Group,
    /// Where a persistent subscription started, and the status.
    StartFrom,
}
