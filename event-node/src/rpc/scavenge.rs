//! Operations.StartScavenge and Operations.StopScavenge.

use tonic::Status;

use crate::{
    access::Caller,
    rpc::{Context, authorization::authorize_operator, status::handler_threw},
    scavenge::ScavengeStart,
    wire::event_store::client::operations::{
        ScavengeResp, StartScavengeReq, StopScavengeReq, scavenge_resp::ScavengeResult,
    },
};

/// Ignores the number of threads and the first chunk: a scavenge has one thread and remembers its
/// progress.
pub(crate) async fn handle_start(
    context: &Context,
    caller: &Caller,
    _: StartScavengeReq,
) -> Result<ScavengeResp, Status> {
    authorize_operator(caller)?;
    let (id, result) = match context.scavenges.start_scavenge().await? {
        ScavengeStart::Started(id) => (id, ScavengeResult::Started),
        ScavengeStart::AlreadyRunning(id) => (id, ScavengeResult::InProgress),
    };
    Ok(ScavengeResp { scavenge_id: id.to_string(), scavenge_result: result.into() })
}

pub(crate) fn handle_stop(
    context: &Context,
    caller: &Caller,
    request: StopScavengeReq,
) -> Result<ScavengeResp, Status> {
    authorize_operator(caller)?;
    let id = request.options.ok_or_else(handler_threw)?.scavenge_id;
    if !context.scavenges.stop_scavenge(&id) {
        return Err(Status::not_found(format!("Scavenge {id} is not running.")));
    }
    Ok(ScavengeResp { scavenge_id: id, scavenge_result: ScavengeResult::Stopped.into() })
}
