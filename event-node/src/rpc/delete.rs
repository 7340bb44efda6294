//! Streams.Delete: hides a stream until something is appended to it.

use tonic::Status;

use crate::{
    log::{Deletion, ExpectedRevision, WriteOutcome, WriteRequest},
    rpc::{
        Context,
        convert::stream_name,
        status::{handler_threw, stream_deleted, wrong_expected_version},
    },
    wire::event_store::client::{
        Empty, Position,
        streams::{DeleteOptions, DeleteReq, DeleteResp, delete_resp::PositionOption},
    },
};

pub(crate) async fn delete(context: &Context, request: DeleteReq) -> Result<DeleteResp, Status> {
    let position_option = match remove(context, request.options, WriteRequest::SoftDelete).await? {
        Some(position) => PositionOption::Position(position),
        None => PositionOption::NoPosition(Empty {}),
    };
    Ok(DeleteResp { position_option: Some(position_option) })
}

/// What Delete and Tombstone have in common. Answers the position of what was written.
pub(crate) async fn remove(
    context: &Context,
    options: Option<DeleteOptions>,
    write: impl FnOnce(Deletion) -> WriteRequest,
) -> Result<Option<Position>, Status> {
    let options = options.ok_or_else(handler_threw)?;
    let expected = ExpectedRevision::try_from(options.expected_stream_revision)?;
    let stream = stream_name(options.stream_identifier)?;
    let removal = Deletion { stream: stream.clone(), expected };
    match context.write(write(removal)).await? {
        WriteOutcome::Written { position, .. } => Ok(position
            .map(|position| Position { commit_position: position, prepare_position: position })),
        WriteOutcome::WrongExpectedVersion { current } => {
            Err(wrong_expected_version(&stream, expected, current))
        }
        WriteOutcome::StreamDeleted => Err(stream_deleted(&stream)),
    }
}
