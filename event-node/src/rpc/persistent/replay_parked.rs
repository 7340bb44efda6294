//! PersistentSubscriptions.ReplayParked: answers at once. The group delivers parked messages as it
//! has room.

use tonic::Status;

use crate::{
    rpc::{
        Context,
        persistent::{RequestedSource, group_error_status, parse_group_key},
        status::{group_failed, handler_threw},
    },
    wire::event_store::client::persistent_subscriptions::{
        ReplayParkedReq, ReplayParkedResp,
        replay_parked_req::options::{Source, StopAtOption},
    },
};

pub(crate) async fn handle_replay_parked(
    context: &Context,
    request: ReplayParkedReq,
) -> Result<ReplayParkedResp, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let source = match options.source.ok_or_else(handler_threw)? {
        Source::StreamIdentifier(stream) => RequestedSource::Stream(Some(stream)),
        Source::All(_) => RequestedSource::All,
    };
    let key = parse_group_key(source, options.group_name)?;
    let stop_at = match options.stop_at_option {
        Some(StopAtOption::StopAt(revision)) => Some(u64::try_from(revision).map_err(|_| {
            group_failed(&key, "Cannot stop replaying parked message at a negative version.")
        })?),
        Some(StopAtOption::NoLimit(_)) => None,
        // A request without a limit is invalid, so that a forgotten limit does not replay
        // everything.
        None => return Err(handler_threw()),
    };
    let group =
        context.groups.find_group(&key).await.map_err(|error| group_error_status(error, &key))?;
    group.replay_parked(stop_at).await.map_err(|error| group_error_status(error, &key))?;
    Ok(ReplayParkedResp {})
}
