//! Carries out one scenario against a server.

use std::{collections::HashMap, time::Duration};

use prost::bytes::Bytes;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::{codegen::http::uri::InvalidUri, transport::Channel};
use uuid::Uuid;

use super::{
    answer::{Translator, shorten_events},
    call::{Call, Ending, Received, count_events, wait_for_events},
    http::{HttpError, RawRequest, frame_message},
    method::{Method, is_group_reading},
    recording::Scenario,
    request::{RequestError, encode_message, encode_messages, parse_hex},
    script::{CompleteCall, Data, Expectation, Http2Request, Operation, Until, Wait},
    tokens::{Tokens, number_unknown_ids},
    view::part,
};

/// How long a complete call may take, unless the recording says otherwise.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long an HTTP/2 request may take, unless the recording says otherwise.
const HTTP2_LIMIT: Duration = Duration::from_secs(3);

/// How often, and how far apart, a call is repeated until its answer is the one waited for.
const REPEATS: usize = 100;
const REPEAT_INTERVAL: Duration = Duration::from_millis(50);

/// The method whose messages are sent to paths that are not a method's.
const READ: &str = "streams.Streams/Read";

/// An answer beside the recorded one.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) wanted: Value,
    pub(super) got: Value,
}

/// Why a scenario stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
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

/// Carries out a scenario. Returns all answers up to the end, or up to where it stopped.
pub(super) async fn run_scenario(
    scenario: &Scenario,
    address: &str,
    channel: Channel,
    pool: &DescriptorPool,
) -> (Vec<Step>, Option<Stopped>) {
    let mut run = Run::new(address, channel, pool);
    let mut stopped = None;
    for operation in &scenario.operations {
        if let Err(reason) = run.perform(operation).await {
            stopped = Some(reason);
            break;
        }
    }
    run.clean_up().await;
    (run.into_steps(), stopped)
}

struct Run<'a> {
    address: &'a str,
    channel: Channel,
    pool: &'a DescriptorPool,
    tokens: Tokens,
    calls: HashMap<String, OpenCall>,
    /// Requests that delete the groups that were created.
    deletions: Vec<Value>,
    steps: Vec<Step>,
}

struct OpenCall {
    call: Call,
    method: Method,
    sent: Vec<Bytes>,
}

impl<'a> Run<'a> {
    #[expect(clippy::disallowed_methods, reason = "names must differ from those of other runs")]
    fn new(address: &'a str, channel: Channel, pool: &'a DescriptorPool) -> Self {
        let tokens = Tokens::new(address, Uuid::new_v4());
        let (calls, deletions, steps) = (HashMap::new(), Vec::new(), Vec::new());
        Self { address, channel, pool, tokens, calls, deletions, steps }
    }

    async fn perform(&mut self, operation: &Operation) -> Result<(), Stopped> {
        match operation {
            Operation::Call(call) => self.call(call).await?,
            Operation::Open(open) => {
                let method = Method::find(self.pool, &open.method)?;
                let deadline = open.deadline_ms.map(Duration::from_millis);
                let (channel, path) = (self.channel.clone(), method.path.clone());
                let call = Call::open(channel, path, &open.headers, deadline);
                let open_call = OpenCall { call, method, sent: Vec::new() };
                self.calls.insert(open.name.clone(), open_call);
            }
            Operation::Send(send) => self.send(&send.to, &send.message)?,
            Operation::End(call) => self.open_call(call)?.call.end(),
            Operation::Ack(ack) => {
                let ids = self.delivery_ids(&ack.to, &ack.deliveries)?;
                self.send(&ack.to, &json!({ "ack": { "ids": ids } }))?;
            }
            Operation::Nack(nack) => {
                let ids = self.delivery_ids(&nack.to, &nack.deliveries)?;
                let reason = nack.reason.clone().unwrap_or_default();
                let nack_of = json!({ "ids": ids, "action": nack.action, "reason": reason });
                self.send(&nack.to, &json!({ "nack": nack_of }))?;
            }
            Operation::Wait(wait) => self.wait(wait).await?,
            Operation::Quiet(quiet) => {
                let silence = Duration::from_millis(quiet.ms);
                self.open_call(&quiet.of)?.call.quiet(silence).await;
            }
            Operation::Cancel(call) => self.open_call(call)?.call.cancel(),
            Operation::Look(look) => {
                let open = self.open_call(&look.at)?;
                let (received, method) = (open.call.received(), open.method.clone());
                let sent = open.sent.clone();
                self.claim_appends(&method, &sent, received.clone())?;
                self.compare(&look.expect, received, &method)?;
            }
            Operation::Pause(pause) => sleep(Duration::from_millis(pause.ms)).await,
            Operation::Http(http) => {
                let request = self.tokens.fill_in(&http.request);
                let headers = http.headers.clone().into_iter().collect();
                let raw = RawRequest { address: self.address, request: &request, headers };
                let body = self.tokens.fill_in(&http.body);
                let got = raw.send(body).await.map_err(Stopped::Http)?;
                self.note(&http.expect, got);
            }
            Operation::Http2(http2) => self.http2(http2).await?,
        }
        Ok(())
    }

    async fn call(&mut self, call: &CompleteCall) -> Result<(), Stopped> {
        let method = Method::find(self.pool, &call.method)?;
        let request = method.request();
        let mut messages = Vec::new();
        for item in &call.send {
            messages.extend(encode_messages(item, request, &mut self.tokens)?);
        }
        let channel = &self.channel;
        let mut received = complete(channel, call, &method, &messages).await;
        for _ in 0..REPEATS {
            if is_awaited(call, &method, &received)? {
                break;
            }
            sleep(REPEAT_INTERVAL).await;
            received = complete(channel, call, &method, &messages).await;
        }
        if is_ok(&received) && call.method.ends_with("PersistentSubscriptions/Create") {
            self.deletions.extend(call.send.first().map(to_deletion));
        }
        self.claim_appends(&method, &messages, received.clone())?;
        if let Some(expect) = &call.expect {
            self.compare(expect, received, &method)?;
        }
        Ok(())
    }

    fn open_call(&mut self, name: &str) -> Result<&mut OpenCall, Stopped> {
        self.calls.get_mut(name).ok_or_else(|| Stopped::NoCall(name.to_owned()))
    }

    fn send(&mut self, name: &str, message: &Value) -> Result<(), Stopped> {
        let open = self.calls.get_mut(name).ok_or_else(|| Stopped::NoCall(name.to_owned()))?;
        let request = open.method.request();
        let message = encode_message(message, request, &mut self.tokens)?;
        open.sent.push(message.clone());
        open.call.send(message);
        Ok(())
    }

    /// Returns the ids by which the given deliveries are acknowledged: a link's, not its target's.
    fn delivery_ids(&mut self, name: &str, deliveries: &[usize]) -> Result<Vec<Value>, Stopped> {
        let open = self.open_call(name)?;
        let answer = open.method.decode(open.call.received())?;
        let delivered = answer.deliveries();
        let mut translator = Translator { pool: self.pool, tokens: &mut self.tokens };
        let ids = deliveries.iter().map(|&index| {
            let read = delivered.get(index)?;
            let id = part(&part(read, "link").or_else(|| part(read, "event"))?, "id")?;
            Some(translator.translate(&id))
        });
        let missing = |index| Stopped::NoDelivery { call: name.to_owned(), index };
        ids.zip(deliveries).map(|(id, &index)| id.ok_or_else(|| missing(index))).collect()
    }

    async fn wait(&mut self, wait: &Wait) -> Result<(), Stopped> {
        let other = match &wait.and {
            Some(other) => Some(self.open_call(other)?.call.watch()),
            None => None,
        };
        let open = self.open_call(&wait.call)?;
        let method = open.method.clone();
        let limit = Duration::from_millis(wait.at_most_ms);
        if let (Some(other), Until::Events(wanted)) = (other, wait.until) {
            wait_for_events(open.call.watch(), other, wanted, limit).await;
            return Ok(());
        }
        let is_enough = |messages: &[Bytes]| match wait.until {
            Until::Messages(count) => messages.len() >= count,
            Until::Events(count) => count_events(messages) >= count,
            Until::CaughtUp => messages.iter().any(|response| method.is_caught_up(response)),
            Until::End => false,
        };
        open.call.wait(limit, is_enough).await;
        Ok(())
    }

    async fn http2(&mut self, http2: &Http2Request) -> Result<(), Stopped> {
        let path = http2.request.split(' ').next_back().unwrap_or_default();
        let method = Method::find(self.pool, &format!("={}", path.trim_start_matches('/')))?;
        let read = Method::find(self.pool, READ)?;
        let request = method.request().or_else(|| read.request());
        let mut frames = Vec::new();
        for data in &http2.data {
            frames.push(match data {
                Data::Raw(hex) => parse_hex(hex)?.into(),
                Data::Message { content, flag, length } => {
                    let message = encode_message(content, request, &mut self.tokens)?;
                    frame_message(&message, *flag, *length)
                }
            });
        }
        let headers = http2.headers.clone().into_iter().collect();
        let raw = RawRequest { address: self.address, request: &http2.request, headers };
        let limit = http2.limit_ms.map_or(HTTP2_LIMIT, Duration::from_millis);
        let sent = raw.send_http2(frames, http2.open, limit).await;
        self.note(&http2.expect, sent.map_err(Stopped::Http)?);
        Ok(())
    }

    fn compare(
        &mut self,
        expect: &Expectation,
        received: Received,
        method: &Method,
    ) -> Result<(), Stopped> {
        let answer = method.decode(received)?;
        let mut translator = Translator { pool: self.pool, tokens: &mut self.tokens };
        let got = answer.show(expect.show, &mut translator);
        self.note(expect, got);
        Ok(())
    }

    fn note(&mut self, expect: &Expectation, got: Value) {
        let (name, wanted) = (expect.step.clone(), expect.answer.clone());
        self.steps.push(Step { name, wanted, got });
    }

    /// Notes where the last events of successful appends stand.
    fn claim_appends(
        &mut self,
        method: &Method,
        sent: &[Bytes],
        received: Received,
    ) -> Result<(), Stopped> {
        for (event, position) in method.appended_events(sent, received)? {
            self.tokens.claim(event, position);
        }
        Ok(())
    }

    /// Ends all calls and deletes the groups, with which the server would go on.
    async fn clean_up(&mut self) {
        for open in self.calls.values_mut() {
            open.call.cancel();
        }
        for request in std::mem::take(&mut self.deletions) {
            let method = "persistent_subscriptions.PersistentSubscriptions/Delete".to_owned();
            let call = CompleteCall { method, send: vec![request], ..CompleteCall::default() };
            // The scenario may have deleted the group itself.
            drop(self.call(&call).await);
        }
    }

    fn into_steps(self) -> Vec<Step> {
        let mut steps = self.steps;
        let render = |step: &Step| {
            let mut got = self.tokens.render(&step.got);
            shorten_events(&mut got);
            got
        };
        let mut got: Vec<_> = steps.iter().map(render).collect();
        let mut wanted: Vec<_> = steps.iter().map(|step| step.wanted.clone()).collect();
        number_unknown_ids(&mut got);
        number_unknown_ids(&mut wanted);
        for ((step, got), wanted) in steps.iter_mut().zip(got).zip(wanted) {
            (step.got, step.wanted) = (got, wanted);
        }
        steps
    }
}

/// Carries out a call from its first message to its status.
async fn complete(
    channel: &Channel,
    script: &CompleteCall,
    method: &Method,
    messages: &[Bytes],
) -> Received {
    let deadline = script.deadline_ms.map(Duration::from_millis);
    let mut call = Call::open(channel.clone(), method.path.clone(), &script.headers, deadline);
    for message in messages {
        call.send(message.clone());
    }
    call.end();
    let limit = script.limit_ms.map_or(CALL_LIMIT, Duration::from_millis);
    call.wait(limit, |_| false).await;
    call.cancel();
    call.received()
}

/// Returns whether a call need not be repeated.
fn is_awaited(
    call: &CompleteCall,
    method: &Method,
    received: &Received,
) -> Result<bool, prost::DecodeError> {
    if !call.settled && call.until_events.is_none() {
        return Ok(true);
    }
    let answer = method.decode(received.clone())?;
    let has_events = call.until_events.is_none_or(|count| answer.deliveries().len() >= count);
    Ok(has_events && !(call.settled && is_group_reading(&answer)))
}

fn is_ok(received: &Received) -> bool {
    matches!(&received.ending, Some(Ending::Status(status)) if status.code() == tonic::Code::Ok)
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
