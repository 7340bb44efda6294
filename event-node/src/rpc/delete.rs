//! Streams.Delete and Streams.Tombstone.

use tonic::Status;

use crate::{
    access::{Caller, StreamAction},
    log::{Deletion, ExpectedRevision, WriteOutcome, WriteRequest},
    rpc::{
        Context,
        convert::parse_stream_name,
        status::{handler_threw, stream_deleted, wrong_expected_version},
    },
    wire::event_store::client::{
        Empty, Position,
        streams::{
            DeleteOptions, DeleteReq, DeleteResp, TombstoneReq, TombstoneResp, delete_resp,
            tombstone_resp,
        },
    },
};

/// Hides a stream until the next append to it.
pub(crate) async fn handle_delete(
    context: &Context,
    caller: &Caller,
    request: DeleteReq,
) -> Result<DeleteResp, Status> {
    use delete_resp::PositionOption::{NoPosition, Position};
    let position =
        remove_stream(context, caller, request.options, WriteRequest::SoftDelete).await?;
    let position_option = Some(position.map_or(NoPosition(Empty {}), Position));
    Ok(DeleteResp { position_option })
}

/// Deletes a stream for ever. No append to it is accepted any more.
pub(crate) async fn handle_tombstone(
    context: &Context,
    caller: &Caller,
    request: TombstoneReq,
) -> Result<TombstoneResp, Status> {
    use tombstone_resp::PositionOption::{NoPosition, Position};
    let position = remove_stream(context, caller, request.options, WriteRequest::Tombstone).await?;
    let position_option = Some(position.map_or(NoPosition(Empty {}), Position));
    Ok(TombstoneResp { position_option })
}

/// Writes a deletion or a tombstone. Returns its position, unless the stream was deleted before.
async fn remove_stream(
    context: &Context,
    caller: &Caller,
    options: Option<DeleteOptions>,
    write: impl FnOnce(Deletion) -> WriteRequest,
) -> Result<Option<Position>, Status> {
    let options = options.ok_or_else(handler_threw)?;
    let expected = ExpectedRevision::try_from(options.expected_stream_revision)?;
    let stream = parse_stream_name(options.stream_identifier)?;
    context.authorize(caller, &stream, StreamAction::Delete).await?;
    let removal = Deletion { stream: stream.clone(), expected };
    match context.write_within_limit(write(removal)).await? {
        WriteOutcome::Written { position, .. } => Ok(position
            .map(|position| Position { commit_position: position, prepare_position: position })),
        WriteOutcome::WrongExpectedVersion { current } => {
            Err(wrong_expected_version(&stream, expected, current))
        }
        WriteOutcome::StreamDeleted => Err(stream_deleted(&stream)),
    }
}
