//! PersistentSubscriptions.ReplayParked: answered at once, delivered as there is room.

use tonic::Status;

use crate::{
    rpc::{
        Context,
        persistent::{SourceName, group_key, refused},
        status::{group_failed, handler_threw},
    },
    wire::event_store::client::persistent_subscriptions::{
        ReplayParkedReq, ReplayParkedResp,
        replay_parked_req::options::{Source, StopAtOption},
    },
};

pub(crate) async fn replay_parked(
    context: &Context,
    request: ReplayParkedReq,
) -> Result<ReplayParkedResp, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let source = match options.source.ok_or_else(handler_threw)? {
        Source::StreamIdentifier(stream) => SourceName::Stream(Some(stream)),
        Source::All(_) => SourceName::All,
    };
    let key = group_key(source, options.group_name)?;
    let stop_at = match options.stop_at_option {
        Some(StopAtOption::StopAt(revision)) => Some(u64::try_from(revision).map_err(|_| {
            group_failed(&key, "Cannot stop replaying parked message at a negative version.")
        })?),
        Some(StopAtOption::NoLimit(_)) => None,
        // Whoever forgot the limit may not mean all of them.
        None => return Err(handler_threw()),
    };
    let group = context.groups.find(&key).await.map_err(|error| refused(error, &key))?;
    group.replay(stop_at).await.map_err(|error| refused(error, &key))?;
    Ok(ReplayParkedResp {})
}
