//! Implementations of the generated service traits. Each method calls the handler of its rpc.

use std::{pin::Pin, sync::Arc};

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    rpc::{
        Context, append, authorization, batch_append, delete, gossip,
        persistent::{self, get_info, group_management},
        read,
        response_stream::ResponseStream,
        scavenge, server_features,
    },
    wire::event_store::client::{
        Empty,
        gossip::{ClusterInfo, gossip_server::Gossip},
        operations::{
            ScavengeResp, StartScavengeReq, StopScavengeReq, operations_server::Operations,
        },
        persistent_subscriptions as groups,
        persistent_subscriptions::persistent_subscriptions_server::PersistentSubscriptions,
        server_features::{SupportedMethods, server_features_server::ServerFeatures},
        streams::{
            AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, DeleteReq, DeleteResp, ReadReq,
            ReadResp, TombstoneReq, TombstoneResp, streams_server::Streams,
        },
    },
};

#[derive(Clone)]
pub(crate) struct Services(pub Arc<Context>);

type RpcResult<T> = Result<Response<T>, Status>;

/// A response stream of any type.
type BoxedStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Streams for Services {
    type ReadStream = ResponseStream<ReadResp>;
    type BatchAppendStream = ResponseStream<BatchAppendResp>;

    async fn read(&self, request: Request<ReadReq>) -> RpcResult<Self::ReadStream> {
        let caller = self.0.caller_of(request.extensions());
        read::handle_read(&self.0, caller, request.into_inner()).await.map(Response::new)
    }

    async fn append(&self, request: Request<Streaming<AppendReq>>) -> RpcResult<AppendResp> {
        let caller = self.0.caller_of(request.extensions());
        append::handle_append(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> RpcResult<Self::BatchAppendStream> {
        let caller = self.0.caller_of(request.extensions());
        Ok(Response::new(batch_append::handle_batch_append(&self.0, caller, request.into_inner())))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> RpcResult<DeleteResp> {
        let caller = self.0.caller_of(request.extensions());
        delete::handle_delete(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn tombstone(&self, request: Request<TombstoneReq>) -> RpcResult<TombstoneResp> {
        let caller = self.0.caller_of(request.extensions());
        delete::handle_tombstone(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl PersistentSubscriptions for Services {
    type ReadStream = BoxedStream<groups::ReadResp>;

    async fn create(&self, request: Request<groups::CreateReq>) -> RpcResult<groups::CreateResp> {
        let caller = self.0.caller_of(request.extensions());
        group_management::handle_create(&self.0, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn update(&self, request: Request<groups::UpdateReq>) -> RpcResult<groups::UpdateResp> {
        let caller = self.0.caller_of(request.extensions());
        group_management::handle_update(&self.0, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn delete(&self, request: Request<groups::DeleteReq>) -> RpcResult<groups::DeleteResp> {
        let caller = self.0.caller_of(request.extensions());
        group_management::handle_delete(&self.0, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn read(
        &self,
        request: Request<Streaming<groups::ReadReq>>,
    ) -> RpcResult<Self::ReadStream> {
        persistent::read::handle_read(&self.0, request).await.map(Response::new)
    }

    async fn get_info(
        &self,
        request: Request<groups::GetInfoReq>,
    ) -> RpcResult<groups::GetInfoResp> {
        let caller = self.0.caller_of(request.extensions());
        get_info::handle_get_info(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn replay_parked(
        &self,
        request: Request<groups::ReplayParkedReq>,
    ) -> RpcResult<groups::ReplayParkedResp> {
        let caller = self.0.caller_of(request.extensions());
        group_management::handle_replay_parked(&self.0, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn list(&self, request: Request<groups::ListReq>) -> RpcResult<groups::ListResp> {
        let caller = self.0.caller_of(request.extensions());
        get_info::handle_list(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn restart_subsystem(&self, request: Request<Empty>) -> RpcResult<Empty> {
        authorization::authorize_operator(&self.0.caller_of(request.extensions()))?;
        self.0.groups.restart_groups().await?;
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl ServerFeatures for Services {
    async fn get_supported_methods(&self, _: Request<Empty>) -> RpcResult<SupportedMethods> {
        Ok(Response::new(server_features::supported_methods()))
    }
}

#[tonic::async_trait]
impl Gossip for Services {
    async fn read(&self, request: Request<Empty>) -> RpcResult<ClusterInfo> {
        Ok(Response::new(gossip::cluster_info(&self.0, request.extensions())))
    }
}

#[tonic::async_trait]
impl Operations for Services {
    async fn start_scavenge(&self, request: Request<StartScavengeReq>) -> RpcResult<ScavengeResp> {
        let caller = self.0.caller_of(request.extensions());
        scavenge::handle_start(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn stop_scavenge(&self, request: Request<StopScavengeReq>) -> RpcResult<ScavengeResp> {
        let caller = self.0.caller_of(request.extensions());
        scavenge::handle_stop(&self.0, &caller, request.into_inner()).map(Response::new)
    }
}
