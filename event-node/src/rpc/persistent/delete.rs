//! PersistentSubscriptions.Delete.

use tonic::Status;

use crate::{
    rpc::{
        Context,
        persistent::{SourceName, group_key, refused},
        status::handler_threw,
    },
    wire::event_store::client::persistent_subscriptions::{
        DeleteReq, DeleteResp, delete_req::options::Source,
    },
};

pub(crate) async fn delete(context: &Context, request: DeleteReq) -> Result<DeleteResp, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let source = match options.source.ok_or_else(handler_threw)? {
        Source::StreamIdentifier(stream) => SourceName::Stream(Some(stream)),
        Source::All(_) => SourceName::All,
    };
    let key = group_key(source, options.group_name)?;
    let deleted = context.groups.delete(key.clone()).await;
    deleted.map_err(|error| refused(error, &key))?;
    Ok(DeleteResp {})
}
