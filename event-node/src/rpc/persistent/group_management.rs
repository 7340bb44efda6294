//! PersistentSubscriptions.Create, Update, Delete and `ReplayParked`.

use tonic::Status;

use crate::{
    access::{Caller, StreamAction},
    rpc::{
        Context,
        authorization::authorize_operator,
        persistent::{
            parse_group_key,
            settings::{GroupRequest, GroupRequestParts, StreamOrAll, parse_group_request},
            status_for,
        },
        status::{group_failed, handler_threw},
    },
    wire::event_store::client::persistent_subscriptions::{
        CreateReq, CreateResp, DeleteReq, DeleteResp, ReplayParkedReq, ReplayParkedResp, UpdateReq,
        UpdateResp, create_req, replay_parked_req::options::StopAtOption, update_req,
    },
};

/// Parses the options of a request that creates or updates a group. Both have the same fields, but
/// different types.
macro_rules! parse_group_options {
    ($options:expr, $source:path) => {{
        use $source as Source;
        let options = $options.ok_or_else(handler_threw)?;
        parse_group_request(GroupRequestParts {
            stream_identifier: options.stream_identifier,
            group_name: options.group_name,
            settings: options.settings,
            source: options.source.map(|source| match source {
                Source::Stream(stream) => StreamOrAll::Stream(stream),
                Source::All(all) => StreamOrAll::All(all),
            }),
        })
    }};
}

pub(crate) async fn handle_create(
    context: &Context,
    caller: &Caller,
    request: CreateReq,
) -> Result<CreateResp, Status> {
    authorize_operator(caller)?;
    let requested: GroupRequest =
        parse_group_options!(request.options, create_req::options::Source)?;
    let key = requested.key.clone();
    let settings = requested.into_settings(context)?;
    let user = caller.name(&context.user_name);
    context.groups.create_group(key.clone(), settings, user).await.map_err(status_for(&key))?;
    Ok(CreateResp {})
}

/// Restarts the group from its checkpoint, without its consumers.
pub(crate) async fn handle_update(
    context: &Context,
    caller: &Caller,
    request: UpdateReq,
) -> Result<UpdateResp, Status> {
    authorize_operator(caller)?;
    let requested: GroupRequest =
        parse_group_options!(request.options, update_req::options::Source)?;
    let key = requested.key.clone();
    // As in EventStoreDB, an update reports a missing group before invalid settings.
    context.groups.find_group(&key).await.map_err(status_for(&key))?;
    let settings = requested.into_settings(context)?;
    let user = caller.name(&context.user_name);
    context.groups.update_group(key.clone(), settings, user).await.map_err(status_for(&key))?;
    Ok(UpdateResp {})
}

pub(crate) async fn handle_delete(
    context: &Context,
    caller: &Caller,
    request: DeleteReq,
) -> Result<DeleteResp, Status> {
    authorize_operator(caller)?;
    let options = request.options.ok_or_else(handler_threw)?;
    let key = parse_group_key(options.source, options.group_name)?;
    let user = caller.name(&context.user_name);
    context.groups.delete_group(key.clone(), user).await.map_err(status_for(&key))?;
    Ok(DeleteResp {})
}

/// Answers at once. The group delivers parked messages as it has room.
pub(crate) async fn handle_replay_parked(
    context: &Context,
    caller: &Caller,
    request: ReplayParkedReq,
) -> Result<ReplayParkedResp, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let key = parse_group_key(options.source, options.group_name)?;
    // EventStoreDB allows operators only. A replay removes messages from the parked stream, so the
    // right to write to that stream is enough (`replay-right` in docs/event-store-compatibility.md).
    if !caller.is_operator() {
        context.authorize(caller, &key.parked_stream(), StreamAction::Write).await?;
    }
    let stop_at = match options.stop_at_option {
        Some(StopAtOption::StopAt(revision)) => Some(u64::try_from(revision).map_err(|_| {
            group_failed(&key, "Cannot stop replaying parked message at a negative version.")
        })?),
        Some(StopAtOption::NoLimit(_)) => None,
        // A request without a limit is invalid, so that a forgotten limit does not replay
        // everything.
        None => return Err(handler_threw()),
    };
    let group = context.groups.find_group(&key).await.map_err(status_for(&key))?;
    group.replay_parked(stop_at).await.map_err(status_for(&key))?;
    Ok(ReplayParkedResp {})
}
