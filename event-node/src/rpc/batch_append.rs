//! Streams.BatchAppend: many appends in flight over one call, answered in the order they finish.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prost::Message;
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use crate::{
    log::{Append, Expected, LogError, Outcome, Write},
    rpc::{
        Context, WRITE_TIMEOUT,
        append::{Gathered, MAX_APPEND_BYTES, TooBig},
        convert::{id, identifier, proposed, stream_name},
        responses::{End, Responses, Sink, channel},
        status::{handler_threw, sentence},
    },
    wire::event_store::client::{
        self as wire, AllStreamPosition, Any, BadRequest, Empty, MaximumAppendSizeExceeded,
        StreamDeleted, WrongExpectedVersion,
        streams::{
            BatchAppendReq, BatchAppendResp,
            batch_append_req::{Options, options::DeadlineOption},
            batch_append_resp::{Result as Wire, Success, success},
        },
    },
};

/// Appends of one call that are being written.
const MAX_IN_FLIGHT: usize = 1_024;

/// Appends of one call whose events are still arriving.
const MAX_OPEN: usize = 64;

/// An append whose events are still arriving.
struct Open {
    correlation_id: Option<wire::Uuid>,
    stream: String,
    expected: Expected,
    timeout: Option<Duration>,
    gathered: Gathered,
    /// The first thing found wrong with it, answered when it is complete.
    failure: Option<Failure>,
}

/// Why an append of a batch did not happen.
enum Failure {
    TooBig,
    BadRequest(String),
    TimedOut,
    Internal,
    Full,
    StreamDeleted,
    WrongExpectedVersion { current: Option<u64> },
}

pub(crate) fn batch_append(
    context: &Arc<Context>,
    request: Streaming<BatchAppendReq>,
) -> Responses<BatchAppendResp> {
    let (sink, responses) = channel(context.stop.clone());
    let task = Arc::clone(context);
    context.tasks.spawn(async move {
        let result = tokio::select! {
            result = serve(&task, request, &sink) => result,
            () = sink.gone() => Err(End::Gone),
        };
        sink.end(result).await;
    });
    responses
}

async fn serve(
    context: &Arc<Context>,
    mut request: Streaming<BatchAppendReq>,
    sink: &Sink<BatchAppendResp>,
) -> Result<(), End> {
    let mut open = HashMap::new();
    let mut writes = JoinSet::new();
    let mut is_complete = false;
    while !is_complete || !writes.is_empty() {
        tokio::select! {
            part = request.message(), if !is_complete && writes.len() < MAX_IN_FLIGHT => {
                let Some(part) = part? else {
                    is_complete = true;
                    continue;
                };
                if let Some(append) = take_part(context, &mut open, part)? {
                    writes.spawn(write(Arc::clone(context), append));
                }
            }
            Some(written) = writes.join_next() => {
                sink.send(written.map_err(|_| handler_threw())?).await?;
            }
        }
    }
    Ok(())
}

/// Adds a part to its append, which is returned when this was the last one.
fn take_part(
    context: &Context,
    open: &mut HashMap<Uuid, Open>,
    part: BatchAppendReq,
) -> Result<Option<Open>, Status> {
    let key = id(part.correlation_id.as_ref()).ok_or_else(handler_threw)?;
    if let Some(options) = part.options {
        if open.len() >= MAX_OPEN && !open.contains_key(&key) {
            let text = format!("More than {MAX_OPEN} appends are unfinished.");
            return Err(Status::resource_exhausted(text));
        }
        open.insert(key, begin(context, part.correlation_id, options)?);
    }
    // The original ignores what belongs to no append.
    let Some(append) = open.get_mut(&key) else { return Ok(None) };
    for message in part.proposed_messages {
        if append.failure.is_some() {
            break;
        }
        append.failure = match proposed(message) {
            Ok(event) => append.gathered.push(event).err().map(|TooBig| Failure::TooBig),
            Err(status) => Some(Failure::BadRequest(status.message().to_owned())),
        };
    }
    Ok(if part.is_final { open.remove(&key) } else { None })
}

fn begin(
    context: &Context,
    correlation_id: Option<wire::Uuid>,
    options: Options,
) -> Result<Open, Status> {
    Ok(Open {
        correlation_id,
        stream: stream_name(options.stream_identifier)?,
        expected: Expected::try_from(options.expected_stream_position)?,
        timeout: time_left(context, options.deadline_option),
        gathered: Gathered::default(),
        failure: None,
    })
}

/// `None` if the deadline has passed. Clients write deadlines of centuries: nothing overflows.
fn time_left(context: &Context, deadline: Option<DeadlineOption>) -> Option<Duration> {
    let millis = match deadline {
        None => return Some(WRITE_TIMEOUT),
        Some(DeadlineOption::Deadline(left)) => in_millis(left.seconds, left.nanos),
        Some(DeadlineOption::Deadline21100(at)) => {
            let now = context.log.clock().now().as_millisecond();
            in_millis(at.seconds, at.nanos).saturating_sub(now)
        }
    };
    let left = u64::try_from(millis).ok().filter(|left| *left > 0)?;
    Some(Duration::from_millis(left).min(WRITE_TIMEOUT))
}

fn in_millis(seconds: i64, nanos: i32) -> i64 {
    seconds.saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000))
}

async fn write(context: Arc<Context>, open: Open) -> BatchAppendResp {
    let Open { correlation_id, stream, expected, timeout, gathered, failure } = open;
    let append = Append { stream: stream.clone(), expected, events: gathered.events };
    let result = match (failure, timeout) {
        (Some(failure), _) => Err(failure),
        (None, None) => Err(Failure::TimedOut),
        (None, Some(timeout)) => {
            match tokio::time::timeout(timeout, context.log.write(Write::Append(append))).await {
                Err(_) => Err(Failure::TimedOut),
                Ok(written) => success_of(&written),
            }
        }
    };
    let result = match result {
        Ok(success) => Wire::Success(success),
        Err(failure) => Wire::Error(describe(&failure, &stream, expected)),
    };
    BatchAppendResp {
        correlation_id,
        stream_identifier: Some(identifier(&stream)),
        result: Some(result),
    }
}

fn success_of(written: &Result<Outcome, LogError>) -> Result<Success, Failure> {
    match *written {
        Ok(Outcome::Written { revision, position }) => Ok(Success {
            current_revision_option: Some(match revision {
                Some(revision) => success::CurrentRevisionOption::CurrentRevision(revision),
                None => success::CurrentRevisionOption::NoStream(Empty {}),
            }),
            position_option: Some(match position {
                Some(position) => success::PositionOption::Position(AllStreamPosition {
                    commit_position: position,
                    prepare_position: position,
                }),
                None => success::PositionOption::NoPosition(Empty {}),
            }),
        }),
        Ok(Outcome::WrongExpectedVersion { current }) => {
            Err(Failure::WrongExpectedVersion { current })
        }
        Ok(Outcome::StreamDeleted) => Err(Failure::StreamDeleted),
        Err(LogError::Full) => Err(Failure::Full),
        Err(
            LogError::Index(_)
            | LogError::Disk(_)
            | LogError::Damaged { .. }
            | LogError::Unsure
            | LogError::Closed,
        ) => Err(Failure::Internal),
    }
}

/// The status that the original answers: its message is the name of its detail.
fn describe(failure: &Failure, stream: &str, expected: Expected) -> wire::Status {
    let max_append_size = u32::try_from(MAX_APPEND_BYTES).unwrap_or(u32::MAX);
    match failure {
        Failure::TooBig => {
            let detail = MaximumAppendSizeExceeded { max_append_size };
            status(Code::InvalidArgument, "MaximumAppendSizeExceeded", &detail)
        }
        Failure::BadRequest(reason) => {
            status(Code::InvalidArgument, "BadRequest", &BadRequest { message: reason.clone() })
        }
        Failure::TimedOut => status(Code::DeadlineExceeded, "Timeout", &Empty {}),
        Failure::Internal => status(Code::Internal, "Unknown", &Empty {}),
        // A detail that clients show: they are told what to do, and not only that it failed.
        Failure::Full => {
            let message = sentence(&LogError::Full);
            let detail = BadRequest { message: message.clone() };
            wire::Status { message, ..status(Code::ResourceExhausted, "BadRequest", &detail) }
        }
        Failure::StreamDeleted => {
            let detail = StreamDeleted { stream_identifier: Some(identifier(stream)) };
            status(Code::NotFound, "StreamDeleted", &detail)
        }
        Failure::WrongExpectedVersion { current } => {
            let detail = wrong_expected_version(expected, *current);
            status(Code::AlreadyExists, "WrongExpectedVersion", &detail)
        }
    }
}

fn status(code: Code, name: &str, detail: &impl Message) -> wire::Status {
    let details = Any {
        type_url: format!("type.googleapis.com/event_store.client.{name}"),
        value: detail.encode_to_vec().into(),
    };
    wire::Status { code: code.into(), message: name.to_owned(), details: Some(details) }
}

fn wrong_expected_version(expected: Expected, current: Option<u64>) -> WrongExpectedVersion {
    use wire::wrong_expected_version::{
        CurrentStreamRevisionOption as Current, ExpectedStreamPositionOption as Wanted,
    };
    let current = match current {
        Some(revision) => Current::CurrentStreamRevision(revision),
        None => Current::CurrentNoStream(Empty {}),
    };
    let wanted = match expected {
        Expected::Any => Wanted::ExpectedAny(Empty {}),
        Expected::NoStream => Wanted::ExpectedNoStream(Empty {}),
        Expected::StreamExists => Wanted::ExpectedStreamExists(Empty {}),
        Expected::Revision(revision) => Wanted::ExpectedStreamPosition(revision),
    };
    WrongExpectedVersion {
        current_stream_revision_option: Some(current),
        expected_stream_position_option: Some(wanted),
    }
}
