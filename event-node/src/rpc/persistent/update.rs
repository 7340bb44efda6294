//! PersistentSubscriptions.Update: begins again from the checkpoint, without its consumers.

use tonic::Status;

use crate::{
    rpc::{
        Context,
        persistent::{
            refused,
            settings::{Parts, Source, read},
        },
        status::handler_threw,
    },
    wire::event_store::client::persistent_subscriptions::{
        UpdateReq, UpdateResp, update_req::options,
    },
};

pub(crate) async fn update(context: &Context, request: UpdateReq) -> Result<UpdateResp, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let parts = Parts {
        stream_identifier: options.stream_identifier,
        group_name: options.group_name,
        settings: options.settings,
        source: options.source.map(|source| match source {
            options::Source::Stream(stream) => Source::Stream(stream),
            options::Source::All(all) => Source::All(all),
        }),
    };
    let requested = read(parts)?;
    let key = requested.key.clone();
    // Unlike when a group is created, whether it is there comes before what is wanted of it.
    context.groups.find(&key).await.map_err(|error| refused(error, &key))?;
    let settings = requested.settings(context)?;
    let updated = context.groups.update(key.clone(), settings).await;
    updated.map_err(|error| refused(error, &key))?;
    Ok(UpdateResp {})
}
