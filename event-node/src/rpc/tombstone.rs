//! Streams.Tombstone: deletes a stream for ever. No append to it is accepted any more.

use tonic::Status;

use crate::{
    log::WriteRequest,
    rpc::{Context, delete::remove_stream},
    wire::event_store::client::{
        Empty,
        streams::{TombstoneReq, TombstoneResp, tombstone_resp::PositionOption},
    },
};

pub(crate) async fn handle_tombstone(
    context: &Context,
    request: TombstoneReq,
) -> Result<TombstoneResp, Status> {
    let position_option =
        match remove_stream(context, request.options, WriteRequest::Tombstone).await? {
            Some(position) => PositionOption::Position(position),
            None => PositionOption::NoPosition(Empty {}),
        };
    Ok(TombstoneResp { position_option: Some(position_option) })
}
