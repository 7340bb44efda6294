//! Runs one scenario against a server.

use std::{collections::HashMap, time::Duration};

use prost::bytes::Bytes;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::{codegen::http::uri::InvalidUri, transport::Channel};
use uuid::Uuid;

use super::{
    json_to_message::{RequestError, encode_message, encode_messages, parse_hex},
    message_to_json::{MessageTranslator, message_field, shorten_events},
    method::{Method, is_group_reading},
    operation::{
        CompleteCall, DataFrame, Expectation, Http2Request, Operation, WaitCondition,
        WaitForResponses,
    },
    placeholders::{Placeholders, number_unknown_ids},
    raw_call::{CallEnd, RawCall, Received, count_events, wait_for_events},
    raw_http::{HttpError, RawRequest, frame_message},
    recording::Scenario,
};

/// Default maximum time of a complete call.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Default maximum time of an HTTP/2 request.
const HTTP2_LIMIT: Duration = Duration::from_secs(3);

/// Maximum number and interval of repetitions of a call that waits for a condition.
const MAX_REPEATS: usize = 100;
const REPEAT_INTERVAL: Duration = Duration::from_millis(50);

/// Method whose request type is used for paths of no method.
const READ_METHOD: &str = "streams.Streams/Read";

/// The answer to a step, and the recorded one.
#[derive(Debug)]
pub(super) struct StepResult {
    pub(super) name: String,
    pub(super) recorded: Value,
    pub(super) got: Value,
}

/// Why a scenario stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScenarioError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("no open call `{0}`")]
    NoCall(String),
    #[error("call `{call}` has no delivery {index}, counted from 0")]
    NoDelivery { call: String, index: usize },
    #[error("invalid method: {0}")]
    Method(#[from] InvalidUri),
    #[error("the request got no answer: {0}")]
    Http(HttpError),
    #[error("a response is not a message of the protocol: {0}")]
    Response(#[from] prost::DecodeError),
}

/// Runs a scenario. Returns the answers up to its end, or up to the error that stopped it.
pub(super) async fn run_scenario(
    scenario: &Scenario,
    address: &str,
    channel: Channel,
    pool: &DescriptorPool,
) -> (Vec<StepResult>, Option<ScenarioError>) {
    let mut run = ScenarioRun::new(address, channel, pool);
    let mut stopped_by = None;
    for operation in &scenario.operations {
        if let Err(error) = run.perform_operation(operation).await {
            stopped_by = Some(error);
            break;
        }
    }
    // Also after an error: groups that stay would disturb later scenarios on the same server.
    run.clean_up().await;
    (run.into_results(), stopped_by)
}

struct ScenarioRun<'a> {
    address: &'a str,
    channel: Channel,
    pool: &'a DescriptorPool,
    placeholders: Placeholders,
    calls: HashMap<String, RunningCall>,
    /// Requests that delete the groups that were created.
    deletions: Vec<Value>,
    results: Vec<StepResult>,
}

struct RunningCall {
    call: RawCall,
    method: Method,
    sent: Vec<Bytes>,
}

impl<'a> ScenarioRun<'a> {
    #[expect(clippy::disallowed_methods, reason = "names must differ from those of other runs")]
    fn new(address: &'a str, channel: Channel, pool: &'a DescriptorPool) -> Self {
        let placeholders = Placeholders::new(address, Uuid::new_v4());
        let (calls, deletions, results) = (HashMap::new(), Vec::new(), Vec::new());
        Self { address, channel, pool, placeholders, calls, deletions, results }
    }

    async fn perform_operation(&mut self, operation: &Operation) -> Result<(), ScenarioError> {
        match operation {
            Operation::Call(call) => self.make_call(call).await?,
            Operation::Open(open) => {
                let method = Method::find_by_name(self.pool, &open.method)?;
                let deadline = open.deadline_ms.map(Duration::from_millis);
                let (channel, path) = (self.channel.clone(), method.path.clone());
                let call = RawCall::open_call(channel, path, &open.headers, deadline);
                let open_call = RunningCall { call, method, sent: Vec::new() };
                self.calls.insert(open.name.clone(), open_call);
            }
            Operation::Send { to, message } => self.send_message(to, message)?,
            Operation::End(call) => self.find_call(call)?.call.end_request(),
            Operation::Ack { to, deliveries } => {
                let ids = self.delivery_ids(to, deliveries)?;
                self.send_message(to, &json!({ "ack": { "ids": ids } }))?;
            }
            Operation::Nack { to, deliveries, action, reason } => {
                let ids = self.delivery_ids(to, deliveries)?;
                let nack = json!({ "ids": ids, "action": action, "reason": reason });
                self.send_message(to, &json!({ "nack": nack }))?;
            }
            Operation::Wait(wait) => self.wait_for_responses(wait).await?,
            Operation::Quiet { of, ms } => {
                let silence = Duration::from_millis(*ms);
                self.find_call(of)?.call.wait_for_silence(silence).await;
            }
            Operation::Cancel(call) => self.find_call(call)?.call.cancel(),
            Operation::Look { at, expect } => {
                let open = self.find_call(at)?;
                let (received, method) = (open.call.received_so_far(), open.method.clone());
                let sent = open.sent.clone();
                self.note_appends(&method, &sent, received.clone())?;
                self.compare_answer(expect, received, &method)?;
            }
            Operation::Pause { ms } => sleep(Duration::from_millis(*ms)).await,
            Operation::Http(http) => {
                let request = self.placeholders.fill_placeholders(&http.request);
                let headers = http.headers.clone().into_iter().collect();
                let raw = RawRequest { address: self.address, request: &request, headers };
                let body = self.placeholders.fill_placeholders(&http.body);
                let got = raw.send_http1(body).await.map_err(ScenarioError::Http)?;
                self.add_result(&http.expect, got);
            }
            Operation::Http2(http2) => self.send_http2(http2).await?,
        }
        Ok(())
    }

    async fn make_call(&mut self, call: &CompleteCall) -> Result<(), ScenarioError> {
        let method = Method::find_by_name(self.pool, &call.method)?;
        let request = method.request_type();
        let mut messages = Vec::new();
        for item in &call.send {
            messages.extend(encode_messages(item, request, &mut self.placeholders)?);
        }
        let channel = &self.channel;
        let mut received = complete_call(channel, call, &method, &messages).await;
        // After the last repetition the answer is compared as it is. The difference shows what is
        // missing.
        for _ in 0..MAX_REPEATS {
            if meets_conditions(call, &method, &received)? {
                break;
            }
            sleep(REPEAT_INTERVAL).await;
            received = complete_call(channel, call, &method, &messages).await;
        }
        if is_ok(&received) && call.method.ends_with("PersistentSubscriptions/Create") {
            self.deletions.extend(call.send.first().map(to_deletion));
        }
        self.note_appends(&method, &messages, received.clone())?;
        if let Some(expect) = &call.expect {
            self.compare_answer(expect, received, &method)?;
        }
        Ok(())
    }

    fn find_call(&mut self, name: &str) -> Result<&mut RunningCall, ScenarioError> {
        self.calls.get_mut(name).ok_or_else(|| ScenarioError::NoCall(name.to_owned()))
    }

    fn send_message(&mut self, name: &str, message: &Value) -> Result<(), ScenarioError> {
        let open =
            self.calls.get_mut(name).ok_or_else(|| ScenarioError::NoCall(name.to_owned()))?;
        let request = open.method.request_type();
        let message = encode_message(message, request, &mut self.placeholders)?;
        open.sent.push(message.clone());
        open.call.send_message(message);
        Ok(())
    }

    /// Returns the ids that acknowledge the given deliveries: of the link, if there is one.
    fn delivery_ids(
        &mut self,
        name: &str,
        deliveries: &[usize],
    ) -> Result<Vec<Value>, ScenarioError> {
        // Not `find_call`: that would borrow the placeholders too.
        let open = self.find_call(name)?;
        let answer = open.method.decode_responses(open.call.received_so_far())?;
        let delivered = answer.delivered_events();
        let mut translator =
            MessageTranslator { pool: self.pool, placeholders: &mut self.placeholders };
        let ids = deliveries.iter().map(|&index| {
            let read = delivered.get(index)?;
            let id = message_field(
                &message_field(read, "link").or_else(|| message_field(read, "event"))?,
                "id",
            )?;
            Some(translator.message_to_json(&id))
        });
        let missing = |index| ScenarioError::NoDelivery { call: name.to_owned(), index };
        ids.zip(deliveries).map(|(id, &index)| id.ok_or_else(|| missing(index))).collect()
    }

    async fn wait_for_responses(&mut self, wait: &WaitForResponses) -> Result<(), ScenarioError> {
        let other = match &wait.and {
            Some(other) => Some(self.find_call(other)?.call.watch_received()),
            None => None,
        };
        let open = self.find_call(&wait.call)?;
        let method = open.method.clone();
        let limit = Duration::from_millis(wait.at_most_ms);
        if let (Some(other), WaitCondition::Events(wanted)) = (other, wait.until) {
            wait_for_events(open.call.watch_received(), other, wanted, limit).await;
            return Ok(());
        }
        // Reaching the time limit is no error. The next comparison shows what is missing.
        let is_enough = |messages: &[Bytes]| match wait.until {
            WaitCondition::Messages(count) => messages.len() >= count,
            WaitCondition::Events(count) => count_events(messages) >= count,
            WaitCondition::CaughtUp => {
                messages.iter().any(|response| method.is_caught_up(response))
            }
            WaitCondition::End => false,
        };
        open.call.wait_until(limit, is_enough).await;
        Ok(())
    }

    async fn send_http2(&mut self, http2: &Http2Request) -> Result<(), ScenarioError> {
        let path = http2.request.split(' ').next_back().unwrap_or_default();
        let method =
            Method::find_by_name(self.pool, &format!("={}", path.trim_start_matches('/')))?;
        let read = Method::find_by_name(self.pool, READ_METHOD)?;
        let request = method.request_type().or_else(|| read.request_type());
        let mut frames = Vec::new();
        for data in &http2.data {
            frames.push(match data {
                DataFrame::Raw(hex) => parse_hex(hex)?.into(),
                DataFrame::Message { content, flag, length } => {
                    let message = encode_message(content, request, &mut self.placeholders)?;
                    frame_message(&message, *flag, *length)
                }
            });
        }
        let headers = http2.headers.clone().into_iter().collect();
        let raw = RawRequest { address: self.address, request: &http2.request, headers };
        let limit = http2.limit_ms.map_or(HTTP2_LIMIT, Duration::from_millis);
        let sent = raw.send_http2(frames, http2.open, limit).await;
        self.add_result(&http2.expect, sent.map_err(ScenarioError::Http)?);
        Ok(())
    }

    fn compare_answer(
        &mut self,
        expect: &Expectation,
        received: Received,
        method: &Method,
    ) -> Result<(), ScenarioError> {
        let answer = method.decode_responses(received)?;
        let mut translator =
            MessageTranslator { pool: self.pool, placeholders: &mut self.placeholders };
        let got = answer.select_part(expect.show, &mut translator);
        self.add_result(expect, got);
        Ok(())
    }

    fn add_result(&mut self, expect: &Expectation, got: Value) {
        let (name, recorded) = (expect.step.clone(), expect.answer.clone());
        self.results.push(StepResult { name, recorded, got });
    }

    /// Notes the positions of the last events of successful appends.
    fn note_appends(
        &mut self,
        method: &Method,
        sent: &[Bytes],
        received: Received,
    ) -> Result<(), ScenarioError> {
        for (event, position) in method.appended_events(sent, received)? {
            self.placeholders.note_appended(event, position);
        }
        Ok(())
    }

    /// Cancels all calls and deletes the groups. Otherwise the server would keep them running.
    async fn clean_up(&mut self) {
        for open in self.calls.values_mut() {
            open.call.cancel();
        }
        for request in std::mem::take(&mut self.deletions) {
            let method = "persistent_subscriptions.PersistentSubscriptions/Delete".to_owned();
            let call = CompleteCall { method, send: vec![request], ..CompleteCall::default() };
            // The deletion fails if the scenario has deleted the group itself.
            drop(self.make_call(&call).await);
        }
    }

    fn into_results(self) -> Vec<StepResult> {
        let mut results = self.results;
        let insert_placeholders = |result: &StepResult| {
            let mut got = self.placeholders.insert_into(&result.got);
            shorten_events(&mut got);
            got
        };
        // Placeholders are inserted only now. The name of a position depends on events of later
        // answers.
        let mut got: Vec<_> = results.iter().map(insert_placeholders).collect();
        let mut recorded: Vec<_> = results.iter().map(|result| result.recorded.clone()).collect();
        number_unknown_ids(&mut got);
        number_unknown_ids(&mut recorded);
        for ((result, got), recorded) in results.iter_mut().zip(got).zip(recorded) {
            (result.got, result.recorded) = (got, recorded);
        }
        results
    }
}

/// Makes a call from its first message to its status.
async fn complete_call(
    channel: &Channel,
    script: &CompleteCall,
    method: &Method,
    messages: &[Bytes],
) -> Received {
    let deadline = script.deadline_ms.map(Duration::from_millis);
    let mut call =
        RawCall::open_call(channel.clone(), method.path.clone(), &script.headers, deadline);
    for message in messages {
        call.send_message(message.clone());
    }
    call.end_request();
    let limit = script.limit_ms.map_or(CALL_LIMIT, Duration::from_millis);
    call.wait_until(limit, |_| false).await;
    // A call without a status in time is cancelled, so that the server stops working on it.
    call.cancel();
    call.received_so_far()
}

/// Returns whether the call's conditions are met, so that it is not repeated.
fn meets_conditions(
    call: &CompleteCall,
    method: &Method,
    received: &Received,
) -> Result<bool, prost::DecodeError> {
    if !call.settled && call.until_events.is_none() {
        return Ok(true);
    }
    let answer = method.decode_responses(received.clone())?;
    let has_events = call.until_events.is_none_or(|count| answer.delivered_events().len() >= count);
    Ok(has_events && !(call.settled && is_group_reading(&answer)))
}

fn is_ok(received: &Received) -> bool {
    matches!(&received.end, Some(CallEnd::Status(status)) if status.code() == tonic::Code::Ok)
}

/// Returns the request that deletes the group that `create` asked for.
fn to_deletion(create: &Value) -> Value {
    let options = &create["options"];
    let group = &options["group_name"];
    if options.get("all").is_some() {
        return json!({ "options": { "all": {}, "group_name": group } });
    }
    let stream = options["stream"].get("stream_identifier").or(options.get("stream_identifier"));
    json!({ "options": { "stream_identifier": stream, "group_name": group } })
}
