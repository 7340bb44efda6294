//! PersistentSubscriptions.Create.

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
        CreateReq, CreateResp, create_req::options,
    },
};

pub(crate) async fn create(context: &Context, request: CreateReq) -> Result<CreateResp, Status> {
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
    let settings = requested.settings(context)?;
    let created = context.groups.create(key.clone(), settings).await;
    created.map_err(|error| refused(error, &key))?;
    Ok(CreateResp {})
}
