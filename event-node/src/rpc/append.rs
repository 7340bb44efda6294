//! Streams.Append: one atomic append. Its options and events are messages of a request stream.

use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use crate::{
    access::{Caller, StreamAction},
    log::{Append, ExpectedRevision, NewEvent, WriteOutcome, WriteRequest},
    rpc::{
        Context,
        convert::{parse_proposed, parse_stream_name},
        status::{append_too_big, handler_threw, stream_deleted},
    },
    wire::event_store::client::{
        Empty, Position,
        streams::{
            AppendReq, AppendResp,
            append_req::{Content, options::ExpectedStreamRevision},
            append_resp::{self, Result as Wire, Success, WrongExpectedVersion},
        },
    },
};

/// Maximum number of bytes of event data per append.
pub(crate) const MAX_APPEND_BYTES: usize = 1_048_576;

/// Maximum number of bytes of an append in memory, with metadata, types and an overhead per event:
/// EventStoreDB's limit for a record.
const MAX_RECORD_BYTES: usize = 16 * 1_024 * 1_024 - 10_000;

const EVENT_OVERHEAD_BYTES: usize = 64;

/// The events of an append so far, within the limits.
#[derive(Default)]
pub(crate) struct EventBatch {
    pub events: Vec<NewEvent>,
    data_bytes: usize,
    record_bytes: usize,
}

impl EventBatch {
    pub(crate) fn push(&mut self, event: NewEvent) -> Result<(), AppendTooBig> {
        self.data_bytes += event.data.len();
        self.record_bytes +=
            event.data.len() + event.metadata.len() + event.event_type.len() + EVENT_OVERHEAD_BYTES;
        if self.data_bytes > MAX_APPEND_BYTES || self.record_bytes > MAX_RECORD_BYTES {
            return Err(AppendTooBig);
        }
        self.events.push(event);
        Ok(())
    }
}

/// An append exceeds [`MAX_APPEND_BYTES`] or [`MAX_RECORD_BYTES`].
#[derive(Debug)]
pub(crate) struct AppendTooBig;

pub(crate) async fn handle_append(
    context: &Context,
    caller: &Caller,
    mut request: Streaming<AppendReq>,
) -> Result<AppendResp, Status> {
    let Some(AppendReq { content: Some(Content::Options(options)) }) = request.message().await?
    else {
        return Err(handler_threw());
    };
    let wanted = options.expected_stream_revision;
    let expected = ExpectedRevision::try_from(wanted)?;
    let stream = parse_stream_name(options.stream_identifier)?;
    context.authorize(caller, &stream, StreamAction::Write).await?;
    // No event is written before the client has ended the request: an append is all or nothing.
    let mut batch = EventBatch::default();
    while let Some(part) = request.next().await {
        let Some(Content::ProposedMessage(message)) = part?.content else {
            return Err(handler_threw());
        };
        batch
            .push(parse_proposed(message)?)
            .map_err(|AppendTooBig| append_too_big(MAX_APPEND_BYTES))?;
    }
    let append = Append { stream: stream.clone(), expected, events: batch.events };
    let result = match context.write_within_limit(WriteRequest::Append(append)).await? {
        WriteOutcome::Written { revision, position } => {
            Wire::Success(to_success(revision, position))
        }
        WriteOutcome::WrongExpectedVersion { current } => {
            Wire::WrongExpectedVersion(to_wrong_expected_version(wanted, current))
        }
        WriteOutcome::StreamDeleted => return Err(stream_deleted(&stream)),
    };
    Ok(AppendResp { result: Some(result) })
}

fn to_success(revision: Option<u64>, position: Option<u64>) -> Success {
    use append_resp::success::{CurrentRevisionOption, PositionOption};
    Success {
        current_revision_option: Some(match revision {
            Some(revision) => CurrentRevisionOption::CurrentRevision(revision),
            None => CurrentRevisionOption::NoStream(Empty {}),
        }),
        position_option: Some(match position {
            Some(position) => PositionOption::Position(Position {
                commit_position: position,
                prepare_position: position,
            }),
            None => PositionOption::NoPosition(Empty {}),
        }),
    }
}

/// Fills the current fields and those of version 20.6, because clients rely on one set or the
/// other. The expected version is returned in the form of the request.
fn to_wrong_expected_version(
    expected: Option<ExpectedStreamRevision>,
    current: Option<u64>,
) -> WrongExpectedVersion {
    use append_resp::wrong_expected_version::{
        CurrentRevisionOption as Current, CurrentRevisionOption2060 as OldCurrent,
        ExpectedRevisionOption as Wanted, ExpectedRevisionOption2060 as OldWanted,
    };
    let (now, old) = match current {
        Some(revision) => {
            (Current::CurrentRevision(revision), OldCurrent::CurrentRevision2060(revision))
        }
        None => (Current::CurrentNoStream(Empty {}), OldCurrent::NoStream2060(Empty {})),
    };
    let expected = expected.map(|expected| match expected {
        ExpectedStreamRevision::Any(_) => {
            (Wanted::ExpectedAny(Empty {}), OldWanted::Any2060(Empty {}))
        }
        ExpectedStreamRevision::StreamExists(_) => {
            (Wanted::ExpectedStreamExists(Empty {}), OldWanted::StreamExists2060(Empty {}))
        }
        ExpectedStreamRevision::NoStream(_) => {
            // The unsigned form of -1, which is `no stream` in 20.6.
            (Wanted::ExpectedNoStream(Empty {}), OldWanted::ExpectedRevision2060(u64::MAX))
        }
        ExpectedStreamRevision::Revision(revision) => {
            (Wanted::ExpectedRevision(revision), OldWanted::ExpectedRevision2060(revision))
        }
    });
    let (wanted, old_wanted) = expected.unzip();
    WrongExpectedVersion {
        current_revision_option_20_6_0: Some(old),
        expected_revision_option_20_6_0: old_wanted,
        current_revision_option: Some(now),
        expected_revision_option: wanted,
    }
}
