//! The generated service traits, each method handed to the file of its rpc.

use std::{pin::Pin, sync::Arc};

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    rpc::{
        Context, append, batch_append, delete, gossip, persistent, read, responses::Responses,
        scavenge, server_features, tombstone,
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

/// Serves all of the protocol.
#[derive(Clone)]
pub(crate) struct Services(pub Arc<Context>);

type Answer<T> = Result<Response<T>, Status>;

/// A stream of responses whose type does not matter to tonic.
type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Streams for Services {
    type ReadStream = Responses<ReadResp>;
    type BatchAppendStream = Responses<BatchAppendResp>;

    async fn read(&self, request: Request<ReadReq>) -> Answer<Self::ReadStream> {
        read::read(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn append(&self, request: Request<Streaming<AppendReq>>) -> Answer<AppendResp> {
        append::append(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Answer<Self::BatchAppendStream> {
        Ok(Response::new(batch_append::batch_append(&self.0, request.into_inner())))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Answer<DeleteResp> {
        delete::delete(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn tombstone(&self, request: Request<TombstoneReq>) -> Answer<TombstoneResp> {
        tombstone::tombstone(&self.0, request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl PersistentSubscriptions for Services {
    type ReadStream = Boxed<groups::ReadResp>;

    async fn create(&self, request: Request<groups::CreateReq>) -> Answer<groups::CreateResp> {
        persistent::create::create(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn update(&self, request: Request<groups::UpdateReq>) -> Answer<groups::UpdateResp> {
        persistent::update::update(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn delete(&self, request: Request<groups::DeleteReq>) -> Answer<groups::DeleteResp> {
        persistent::delete::delete(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn read(&self, request: Request<Streaming<groups::ReadReq>>) -> Answer<Self::ReadStream> {
        persistent::read::read(&self.0, request).await.map(Response::new)
    }

    async fn get_info(&self, request: Request<groups::GetInfoReq>) -> Answer<groups::GetInfoResp> {
        persistent::info::get_info(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn replay_parked(
        &self,
        request: Request<groups::ReplayParkedReq>,
    ) -> Answer<groups::ReplayParkedResp> {
        persistent::replay::replay_parked(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn list(&self, request: Request<groups::ListReq>) -> Answer<groups::ListResp> {
        persistent::info::list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn restart_subsystem(&self, _: Request<Empty>) -> Answer<Empty> {
        self.0.groups.restart().await?;
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl ServerFeatures for Services {
    async fn get_supported_methods(&self, _: Request<Empty>) -> Answer<SupportedMethods> {
        Ok(Response::new(server_features::supported_methods()))
    }
}

#[tonic::async_trait]
impl Gossip for Services {
    async fn read(&self, request: Request<Empty>) -> Answer<ClusterInfo> {
        Ok(Response::new(gossip::cluster(&self.0, request.extensions())))
    }
}

#[tonic::async_trait]
impl Operations for Services {
    async fn start_scavenge(&self, request: Request<StartScavengeReq>) -> Answer<ScavengeResp> {
        scavenge::start_scavenge(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn stop_scavenge(&self, request: Request<StopScavengeReq>) -> Answer<ScavengeResp> {
        scavenge::stop_scavenge(&self.0, request.into_inner()).map(Response::new)
    }
}
