//! Streams.BatchAppend: many concurrent appends over one call, answered in the order they finish.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::poll_fn,
    ops::RangeInclusive,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use prost::Message;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use crate::{
    access::{Caller, StreamAction},
    log::{Append, ExpectedRevision, LogError, WriteOutcome, WriteRequest},
    rpc::{
        Context, WRITE_TIMEOUT,
        append::{AppendTooBig, EventBatch, MAX_APPEND_BYTES},
        convert::{parse_id, parse_proposed, parse_stream_name, stream_identifier},
        response_stream::{ResponseSink, ResponseStream, StreamEnd, response_channel},
        status::{handler_threw, refused_write_text},
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

/// Maximum number of appends of one call that are being written.
const MAX_IN_FLIGHT: usize = 1_024;

/// Maximum number of appends of one call whose events are still arriving.
const MAX_OPEN: usize = 64;

/// Range of a protobuf duration: 10,000 years either way.
const DURATION_SECONDS: RangeInclusive<i64> = -315_576_000_000..=315_576_000_000;

/// Range of a protobuf timestamp: the years 1 to 9999.
const TIMESTAMP_SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Maximum number of nanoseconds of either.
const MAX_NANOS: i32 = 999_999_999;

/// An append whose events are still arriving.
struct OpenAppend {
    correlation_id: Option<wire::Uuid>,
    stream: String,
    expected: ExpectedRevision,
    expires: Instant,
    batch: EventBatch,
}

/// The immediate consequence of a part of an append.
enum PartOutcome {
    Nothing,
    Write(OpenAppend),
    Respond(BatchAppendResp),
}

/// Why an append failed.
enum AppendError {
    AccessDenied,
    TooBig,
    BadRequest(String),
    TimedOut,
    Internal,
    Full,
    StreamDeleted,
    WrongExpectedVersion { expected: ExpectedRevision, current: Option<u64> },
}

pub(crate) fn handle_batch_append(
    context: &Arc<Context>,
    caller: Caller,
    request: Streaming<BatchAppendReq>,
) -> ResponseStream<BatchAppendResp> {
    let (sink, responses) = response_channel(context.stop.clone());
    let task = Arc::clone(context);
    context.tasks.spawn(async move {
        let result = tokio::select! {
            result = serve_appends(&task, &caller, request, &sink) => result,
            () = sink.wait_until_closed() => Err(StreamEnd::Closed),
        };
        sink.end_with(result).await;
    });
    responses
}

async fn serve_appends(
    context: &Arc<Context>,
    caller: &Caller,
    mut request: Streaming<BatchAppendReq>,
    sink: &ResponseSink<BatchAppendResp>,
) -> Result<(), StreamEnd> {
    let mut open = HashMap::new();
    // If the client cancels the call, dropping the set ends the tasks but not their writes: the log
    // commits what is queued.
    let mut writes = JoinSet::new();
    let mut is_complete = false;
    while !is_complete || !writes.is_empty() {
        let expires = open.values().map(|append: &OpenAppend| append.expires).min();
        tokio::select! {
            // Reading stops while too many writes run. HTTP/2 flow control then blocks the client.
            // Another branch may win while a message is incomplete. The received bytes stay in
            // `request`.
            part = request.message(), if !is_complete && writes.len() < MAX_IN_FLIGHT => {
                let Some(part) = part? else {
                    is_complete = true;
                    continue;
                };
                match take_part(context, caller, &mut open, part).await? {
                    PartOutcome::Nothing => {}
                    PartOutcome::Write(append) => {
                        let mut write = Box::pin(write_append(Arc::clone(context), append));
                        // The log queues a write at its first poll. Callers rely on the order of
                        // their appends, so the first poll happens here and not in the spawned
                        // task.
                        match poll_fn(|task| Poll::Ready(write.as_mut().poll(task))).await {
                            Poll::Ready(response) => sink.send(response).await?,
                            Poll::Pending => drop(writes.spawn(write)),
                        }
                    }
                    // While the client does not read its responses, this waits, and no further part
                    // is read.
                    PartOutcome::Respond(response) => sink.send(response).await?,
                }
            }
            Some(written) = writes.join_next() => {
                sink.send(written.map_err(|_| handler_threw())?).await?;
            }
            // `select!` evaluates the expression of a disabled branch too, so it needs some time.
            () = sleep_until(expires.unwrap_or_else(Instant::now)), if expires.is_some() => {
                let now = Instant::now();
                for (_, append) in open.extract_if(|_, append| append.expires <= now) {
                    sink.send(append.into_error(&AppendError::TimedOut)).await?;
                }
            }
        }
    }
    Ok(())
}

/// Adds a part to its append. An invalid part fails its append at once. Later parts of a failed
/// append are ignored.
async fn take_part(
    context: &Context,
    caller: &Caller,
    open: &mut HashMap<Uuid, OpenAppend>,
    part: BatchAppendReq,
) -> Result<PartOutcome, Status> {
    let BatchAppendReq { correlation_id, options, proposed_messages, is_final } = part;
    let refuse = |correlation_id, stream_identifier, failure: &AppendError| {
        Ok(PartOutcome::Respond(error_response(correlation_id, stream_identifier, failure)))
    };
    let key = match parse_correlation_id(correlation_id.as_ref()) {
        Ok(key) => key,
        Err(reason) => {
            let Some(options) = options else { return Err(handler_threw()) };
            return refuse(correlation_id, options.stream_identifier, &reason);
        }
    };
    // As in EventStoreDB, the first options of an append count and later ones are ignored.
    if let Some(options) = options
        && !open.contains_key(&key)
    {
        // The error ends the whole call. More unfinished appends would take memory without bound.
        if open.len() >= MAX_OPEN {
            let text = format!("More than {MAX_OPEN} appends are unfinished.");
            return Err(Status::resource_exhausted(text));
        }
        let stream_identifier = options.stream_identifier.clone();
        match begin_append(context, caller, correlation_id.clone(), options).await {
            Ok(append) => drop(open.insert(key, append)),
            Err(failure) => return refuse(correlation_id, stream_identifier, &failure),
        }
    }
    // As in EventStoreDB, a part without an append is ignored.
    let Entry::Occupied(mut append) = open.entry(key) else { return Ok(PartOutcome::Nothing) };
    if let Err(failure) = add_events(&mut append.get_mut().batch, proposed_messages) {
        return Ok(PartOutcome::Respond(append.remove().into_error(&failure)));
    }
    Ok(if is_final { PartOutcome::Write(append.remove()) } else { PartOutcome::Nothing })
}

/// Parses the id that all parts of an append share.
fn parse_correlation_id(correlation_id: Option<&wire::Uuid>) -> Result<Uuid, AppendError> {
    let reason = match parse_id(correlation_id) {
        Some(key) if !key.is_nil() => return Ok(key),
        Some(_) => "correlationId (Parameter 'correlationId should be non-empty GUID.')",
        None => "The correlation id cannot be read.",
    };
    Err(AppendError::BadRequest(reason.to_owned()))
}

fn add_events(
    batch: &mut EventBatch,
    messages: Vec<wire::ProposedMessage>,
) -> Result<(), AppendError> {
    for message in messages {
        batch.push(parse_proposed(message)?).map_err(|AppendTooBig| AppendError::TooBig)?;
    }
    Ok(())
}

async fn begin_append(
    context: &Context,
    caller: &Caller,
    correlation_id: Option<wire::Uuid>,
    options: Options,
) -> Result<OpenAppend, AppendError> {
    if options.stream_identifier.is_none() {
        return Err(AppendError::BadRequest("Required field StreamIdentifier not set.".to_owned()));
    }
    let left = time_left(context, options.deadline_option)?;
    let stream = parse_stream_name(options.stream_identifier)?;
    // EventStoreDB checks the rights for each append of the call, so a change takes effect at once.
    match context.acls.is_allowed(caller, &stream, StreamAction::Write).await {
        Ok(true) => {}
        Ok(false) => return Err(AppendError::AccessDenied),
        Err(_) => return Err(AppendError::Internal),
    }
    Ok(OpenAppend {
        correlation_id,
        stream,
        expected: ExpectedRevision::try_from(options.expected_stream_position)?,
        expires: Instant::now() + left,
        batch: EventBatch::default(),
    })
}

impl From<Status> for AppendError {
    fn from(status: Status) -> Self {
        Self::BadRequest(status.message().to_owned())
    }
}

impl OpenAppend {
    fn into_error(self, failure: &AppendError) -> BatchAppendResp {
        error_response(self.correlation_id, Some(stream_identifier(&self.stream)), failure)
    }
}

fn error_response(
    correlation_id: Option<wire::Uuid>,
    stream_identifier: Option<wire::StreamIdentifier>,
    failure: &AppendError,
) -> BatchAppendResp {
    let error = to_wire_status(failure, stream_identifier.as_ref());
    BatchAppendResp { correlation_id, stream_identifier, result: Some(Wire::Error(error)) }
}

/// Returns the time that is left for the append. Fails if the deadline has passed or is outside the
/// ranges of protobuf. Clients send deadlines of centuries, so the arithmetic saturates.
fn time_left(context: &Context, deadline: Option<DeadlineOption>) -> Result<Duration, AppendError> {
    let millis = match deadline {
        None => return Ok(WRITE_TIMEOUT),
        Some(DeadlineOption::Deadline(left)) => {
            let (seconds, nanos) = (left.seconds, left.nanos);
            let is_one_sign = seconds.signum() * i64::from(nanos.signum()) >= 0;
            let is_in_range =
                DURATION_SECONDS.contains(&seconds) && (-MAX_NANOS..=MAX_NANOS).contains(&nanos);
            if !is_in_range || !is_one_sign {
                let text = "Duration was not a valid normalized duration";
                return Err(AppendError::BadRequest(text.to_owned()));
            }
            to_millis(seconds, nanos)
        }
        Some(DeadlineOption::Deadline21100(at)) => {
            let (seconds, nanos) = (at.seconds, at.nanos);
            if !TIMESTAMP_SECONDS.contains(&seconds) || !(0..=MAX_NANOS).contains(&nanos) {
                let text = "Timestamp contains invalid values: ";
                let text = format!("{text}Seconds={seconds}; Nanos={nanos}");
                return Err(AppendError::BadRequest(text));
            }
            let now = context.log.clock().now().as_millisecond();
            to_millis(seconds, nanos).saturating_sub(now)
        }
    };
    let left = u64::try_from(millis).ok().filter(|left| *left > 0).ok_or(AppendError::TimedOut)?;
    Ok(Duration::from_millis(left).min(WRITE_TIMEOUT))
}

fn to_millis(seconds: i64, nanos: i32) -> i64 {
    seconds.saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000))
}

async fn write_append(context: Arc<Context>, mut open: OpenAppend) -> BatchAppendResp {
    let events = std::mem::take(&mut open.batch).events;
    let append = Append { stream: open.stream.clone(), expected: open.expected, events };
    let written = context.log.write(WriteRequest::Append(append));
    let result = match timeout_at(open.expires, written).await {
        Err(_) => Err(AppendError::TimedOut),
        Ok(written) => to_success(&written, open.expected),
    };
    match result {
        Err(failure) => open.into_error(&failure),
        Ok(success) => BatchAppendResp {
            correlation_id: open.correlation_id,
            stream_identifier: Some(stream_identifier(&open.stream)),
            result: Some(Wire::Success(success)),
        },
    }
}

fn to_success(
    written: &Result<WriteOutcome, LogError>,
    expected: ExpectedRevision,
) -> Result<Success, AppendError> {
    match *written {
        Ok(WriteOutcome::Written { revision, position }) => Ok(Success {
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
        Ok(WriteOutcome::WrongExpectedVersion { current }) => {
            Err(AppendError::WrongExpectedVersion { expected, current })
        }
        Ok(WriteOutcome::StreamDeleted) => Err(AppendError::StreamDeleted),
        Err(LogError::Full) => Err(AppendError::Full),
        Err(_) => Err(AppendError::Internal),
    }
}

/// Returns EventStoreDB's status. Its message is the name of its detail.
fn to_wire_status(failure: &AppendError, stream: Option<&wire::StreamIdentifier>) -> wire::Status {
    let max_append_size = u32::try_from(MAX_APPEND_BYTES).unwrap_or(u32::MAX);
    match failure {
        AppendError::AccessDenied => {
            status_with_detail(Code::PermissionDenied, "AccessDenied", &Empty {})
        }
        AppendError::TooBig => {
            let detail = MaximumAppendSizeExceeded { max_append_size };
            status_with_detail(Code::InvalidArgument, "MaximumAppendSizeExceeded", &detail)
        }
        AppendError::BadRequest(reason) => status_with_detail(
            Code::InvalidArgument,
            "BadRequest",
            &BadRequest { message: reason.clone() },
        ),
        AppendError::TimedOut => status_with_detail(Code::DeadlineExceeded, "Timeout", &Empty {}),
        AppendError::Internal => status_with_detail(Code::Internal, "Unknown", &Empty {}),
        // Clients show the message of this detail. It says what to do.
        AppendError::Full => {
            let message = refused_write_text(&LogError::Full);
            let detail = BadRequest { message: message.clone() };
            wire::Status {
                message,
                ..status_with_detail(Code::ResourceExhausted, "BadRequest", &detail)
            }
        }
        AppendError::StreamDeleted => {
            let detail = StreamDeleted { stream_identifier: stream.cloned() };
            status_with_detail(Code::NotFound, "StreamDeleted", &detail)
        }
        AppendError::WrongExpectedVersion { expected, current } => {
            let detail = to_wrong_expected_version(*expected, *current);
            status_with_detail(Code::AlreadyExists, "WrongExpectedVersion", &detail)
        }
    }
}

fn status_with_detail(code: Code, name: &str, detail: &impl Message) -> wire::Status {
    let details = Any {
        type_url: format!("type.googleapis.com/event_store.client.{name}"),
        value: detail.encode_to_vec().into(),
    };
    wire::Status { code: code.into(), message: name.to_owned(), details: Some(details) }
}

fn to_wrong_expected_version(
    expected: ExpectedRevision,
    current: Option<u64>,
) -> WrongExpectedVersion {
    use wire::wrong_expected_version::{
        CurrentStreamRevisionOption as Current, ExpectedStreamPositionOption as Wanted,
    };
    let current = match current {
        Some(revision) => Current::CurrentStreamRevision(revision),
        None => Current::CurrentNoStream(Empty {}),
    };
    let wanted = match expected {
        ExpectedRevision::Any => Wanted::ExpectedAny(Empty {}),
        ExpectedRevision::NoStream => Wanted::ExpectedNoStream(Empty {}),
        ExpectedRevision::StreamExists => Wanted::ExpectedStreamExists(Empty {}),
        ExpectedRevision::Revision(revision) => Wanted::ExpectedStreamPosition(revision),
    };
    WrongExpectedVersion {
        current_stream_revision_option: Some(current),
        expected_stream_position_option: Some(wanted),
    }
}
