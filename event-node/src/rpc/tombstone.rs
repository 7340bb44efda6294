//! Streams.Tombstone: ends a stream for ever.

use tonic::Status;

use crate::{
    log::WriteRequest,
    rpc::{Context, delete::remove},
    wire::event_store::client::{
        Empty,
        streams::{TombstoneReq, TombstoneResp, tombstone_resp::PositionOption},
    },
};

pub(crate) async fn tombstone(
    context: &Context,
    request: TombstoneReq,
) -> Result<TombstoneResp, Status> {
    let position_option = match remove(context, request.options, WriteRequest::Tombstone).await? {
        Some(position) => PositionOption::Position(position),
        None => PositionOption::NoPosition(Empty {}),
    };
    Ok(TombstoneResp { position_option: Some(position_option) })
}
