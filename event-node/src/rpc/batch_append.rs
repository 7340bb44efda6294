//! Streams.BatchAppend: many appends in flight over one call, answered in the order they finish.

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
    log::{Append, ExpectedRevision, LogError, WriteOutcome, WriteRequest},
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

/// What a duration may have: 10,000 years either way, as the protocol's types say.
const DURATION_SECONDS: RangeInclusive<i64> = -315_576_000_000..=315_576_000_000;

/// What a time may have: the years 1 to 9999.
const TIMESTAMP_SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Most nanoseconds that either may have besides.
const MAX_NANOS: i32 = 999_999_999;

/// An append whose events are still arriving.
struct Open {
    correlation_id: Option<wire::Uuid>,
    stream: String,
    expected: ExpectedRevision,
    expires: Instant,
    gathered: Gathered,
}

/// What a part of an append leads to at once.
enum Step {
    Nothing,
    Write(Open),
    Answer(BatchAppendResp),
}

/// Why an append of a batch did not happen.
enum Failure {
    TooBig,
    BadRequest(String),
    TimedOut,
    Internal,
    Full,
    StreamDeleted,
    WrongExpectedVersion { expected: ExpectedRevision, current: Option<u64> },
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
        let expires = open.values().map(|append: &Open| append.expires).min();
        tokio::select! {
            part = request.message(), if !is_complete && writes.len() < MAX_IN_FLIGHT => {
                let Some(part) = part? else {
                    is_complete = true;
                    continue;
                };
                match take_part(context, &mut open, part)? {
                    Step::Nothing => {}
                    Step::Write(append) => {
                        let mut write = Box::pin(write(Arc::clone(context), append));
                        // The log takes writes in the order in which they are polled first, and
                        // callers count on the order in which they sent theirs.
                        match poll_fn(|task| Poll::Ready(write.as_mut().poll(task))).await {
                            Poll::Ready(answer) => sink.send(answer).await?,
                            Poll::Pending => drop(writes.spawn(write)),
                        }
                    }
                    Step::Answer(answer) => sink.send(answer).await?,
                }
            }
            Some(written) = writes.join_next() => {
                sink.send(written.map_err(|_| handler_threw())?).await?;
            }
            () = sleep_until(expires.unwrap_or_else(Instant::now)), if expires.is_some() => {
                let now = Instant::now();
                for (_, append) in open.extract_if(|_, append| append.expires <= now) {
                    sink.send(append.refused(&Failure::TimedOut)).await?;
                }
            }
        }
    }
    Ok(())
}

/// Adds a part to its append. What is wrong with it is answered at once, and what follows for a
/// refused append belongs to none.
fn take_part(
    context: &Context,
    open: &mut HashMap<Uuid, Open>,
    part: BatchAppendReq,
) -> Result<Step, Status> {
    let BatchAppendReq { correlation_id, options, proposed_messages, is_final } = part;
    let key = match correlation(correlation_id.as_ref()) {
        Ok(key) => key,
        Err(reason) => {
            let Some(options) = options else { return Err(handler_threw()) };
            return Ok(Step::Answer(refused(correlation_id, options.stream_identifier, &reason)));
        }
    };
    // The original lets the first options of an append stand.
    if let Some(options) = options
        && !open.contains_key(&key)
    {
        if open.len() >= MAX_OPEN {
            let text = format!("More than {MAX_OPEN} appends are unfinished.");
            return Err(Status::resource_exhausted(text));
        }
        let stream_identifier = options.stream_identifier.clone();
        match begin(context, correlation_id.clone(), options) {
            Ok(append) => drop(open.insert(key, append)),
            Err(failure) => {
                return Ok(Step::Answer(refused(correlation_id, stream_identifier, &failure)));
            }
        }
    }
    // The original ignores what belongs to no append.
    let Entry::Occupied(mut append) = open.entry(key) else { return Ok(Step::Nothing) };
    if let Err(failure) = gather(&mut append.get_mut().gathered, proposed_messages) {
        return Ok(Step::Answer(append.remove().refused(&failure)));
    }
    Ok(if is_final { Step::Write(append.remove()) } else { Step::Nothing })
}

/// The id that tells the parts of an append from those of others.
fn correlation(correlation_id: Option<&wire::Uuid>) -> Result<Uuid, Failure> {
    let reason = match id(correlation_id) {
        Some(key) if !key.is_nil() => return Ok(key),
        Some(_) => "correlationId (Parameter 'correlationId should be non-empty GUID.')",
        None => "The correlation id cannot be read.",
    };
    Err(Failure::BadRequest(reason.to_owned()))
}

fn gather(gathered: &mut Gathered, messages: Vec<wire::ProposedMessage>) -> Result<(), Failure> {
    for message in messages {
        gathered.push(proposed(message)?).map_err(|TooBig| Failure::TooBig)?;
    }
    Ok(())
}

fn begin(
    context: &Context,
    correlation_id: Option<wire::Uuid>,
    options: Options,
) -> Result<Open, Failure> {
    if options.stream_identifier.is_none() {
        return Err(Failure::BadRequest("Required field StreamIdentifier not set.".to_owned()));
    }
    let left = time_left(context, options.deadline_option)?;
    Ok(Open {
        correlation_id,
        stream: stream_name(options.stream_identifier)?,
        expected: ExpectedRevision::try_from(options.expected_stream_position)?,
        expires: Instant::now() + left,
        gathered: Gathered::default(),
    })
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::BadRequest(status.message().to_owned())
    }
}

impl Open {
    fn refused(self, failure: &Failure) -> BatchAppendResp {
        refused(self.correlation_id, Some(identifier(&self.stream)), failure)
    }
}

fn refused(
    correlation_id: Option<wire::Uuid>,
    stream_identifier: Option<wire::StreamIdentifier>,
    failure: &Failure,
) -> BatchAppendResp {
    let error = describe(failure, stream_identifier.as_ref());
    BatchAppendResp { correlation_id, stream_identifier, result: Some(Wire::Error(error)) }
}

/// How long the append may take. Fails if the deadline has passed, or is none that the protocol's
/// types allow. Clients write deadlines of centuries: nothing overflows.
fn time_left(context: &Context, deadline: Option<DeadlineOption>) -> Result<Duration, Failure> {
    let millis = match deadline {
        None => return Ok(WRITE_TIMEOUT),
        Some(DeadlineOption::Deadline(left)) => {
            let (seconds, nanos) = (left.seconds, left.nanos);
            let is_one_sign = seconds.signum() * i64::from(nanos.signum()) >= 0;
            let is_in_range =
                DURATION_SECONDS.contains(&seconds) && (-MAX_NANOS..=MAX_NANOS).contains(&nanos);
            if !is_in_range || !is_one_sign {
                let text = "Duration was not a valid normalized duration";
                return Err(Failure::BadRequest(text.to_owned()));
            }
            in_millis(seconds, nanos)
        }
        Some(DeadlineOption::Deadline21100(at)) => {
            let (seconds, nanos) = (at.seconds, at.nanos);
            if !TIMESTAMP_SECONDS.contains(&seconds) || !(0..=MAX_NANOS).contains(&nanos) {
                let text = "Timestamp contains invalid values: ";
                let text = format!("{text}Seconds={seconds}; Nanos={nanos}");
                return Err(Failure::BadRequest(text));
            }
            let now = context.log.clock().now().as_millisecond();
            in_millis(seconds, nanos).saturating_sub(now)
        }
    };
    let left = u64::try_from(millis).ok().filter(|left| *left > 0).ok_or(Failure::TimedOut)?;
    Ok(Duration::from_millis(left).min(WRITE_TIMEOUT))
}

fn in_millis(seconds: i64, nanos: i32) -> i64 {
    seconds.saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000))
}

async fn write(context: Arc<Context>, mut open: Open) -> BatchAppendResp {
    let events = std::mem::take(&mut open.gathered).events;
    let append = Append { stream: open.stream.clone(), expected: open.expected, events };
    let written = context.log.write(WriteRequest::Append(append));
    let result = match timeout_at(open.expires, written).await {
        Err(_) => Err(Failure::TimedOut),
        Ok(written) => success_of(&written, open.expected),
    };
    match result {
        Err(failure) => open.refused(&failure),
        Ok(success) => BatchAppendResp {
            correlation_id: open.correlation_id,
            stream_identifier: Some(identifier(&open.stream)),
            result: Some(Wire::Success(success)),
        },
    }
}

fn success_of(
    written: &Result<WriteOutcome, LogError>,
    expected: ExpectedRevision,
) -> Result<Success, Failure> {
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
            Err(Failure::WrongExpectedVersion { expected, current })
        }
        Ok(WriteOutcome::StreamDeleted) => Err(Failure::StreamDeleted),
        Err(LogError::Full) => Err(Failure::Full),
        Err(
            LogError::DamagedIndex
            | LogError::Disk(_)
            | LogError::Damaged { .. }
            | LogError::TornWrite(_)
            | LogError::Closed,
        ) => Err(Failure::Internal),
    }
}

/// The status that the original answers: its message is the name of its detail.
fn describe(failure: &Failure, stream: Option<&wire::StreamIdentifier>) -> wire::Status {
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
            let detail = StreamDeleted { stream_identifier: stream.cloned() };
            status(Code::NotFound, "StreamDeleted", &detail)
        }
        Failure::WrongExpectedVersion { expected, current } => {
            let detail = wrong_expected_version(*expected, *current);
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

fn wrong_expected_version(
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
