//! PersistentSubscriptions.Create.

use tonic::Status;

use crate::{
    rpc::{
        Context,
        persistent::{
            group_error_status,
            settings::{GroupRequestParts, StreamOrAll, parse_group_request},
        },
        status::handler_threw,
    },
    wire::event_store::client::persistent_subscriptions::{
        CreateReq, CreateResp, create_req::options,
    },
};

pub(crate) async fn handle_create(
    context: &Context,
    request: CreateReq,
) -> Result<CreateResp, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let parts = GroupRequestParts {
        stream_identifier: options.stream_identifier,
        group_name: options.group_name,
        settings: options.settings,
        source: options.source.map(|source| match source {
            options::Source::Stream(stream) => StreamOrAll::Stream(stream),
            options::Source::All(all) => StreamOrAll::All(all),
        }),
    };
    let requested = parse_group_request(parts)?;
    let key = requested.key.clone();
    let settings = requested.into_settings(context)?;
    let created = context.groups.create_group(key.clone(), settings).await;
    created.map_err(|error| group_error_status(error, &key))?;
    Ok(CreateResp {})
}
