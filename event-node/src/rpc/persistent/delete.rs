//! PersistentSubscriptions.Delete.

use tonic::Status;

use crate::{
    rpc::{
        Context,
        persistent::{RequestedSource, group_error_status, parse_group_key},
        status::handler_threw,
    },
    wire::event_store::client::persistent_subscriptions::{
        DeleteReq, DeleteResp, delete_req::options::Source,
    },
};

pub(crate) async fn handle_delete(
    context: &Context,
    request: DeleteReq,
) -> Result<DeleteResp, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let source = match options.source.ok_or_else(handler_threw)? {
        Source::StreamIdentifier(stream) => RequestedSource::Stream(Some(stream)),
        Source::All(_) => RequestedSource::All,
    };
    let key = parse_group_key(source, options.group_name)?;
    let deleted = context.groups.delete_group(key.clone()).await;
    deleted.map_err(|error| group_error_status(error, &key))?;
    Ok(DeleteResp {})
}
