//! Gossip.Read: a cluster of one, which is its own leader.

use uuid::Uuid;

use crate::{
    rpc::{Context, convert::IdStyle},
    wire::event_store::client::gossip::{
        ClusterInfo, EndPoint, MemberInfo, member_info::VNodeState,
    },
};

/// The address at which clients reach this node.
#[derive(Debug, Clone)]
pub(crate) struct Advertised {
    pub instance: Uuid,
    pub host: String,
    pub port: u16,
}

pub(crate) fn cluster(context: &Context) -> ClusterInfo {
    let advertised = &context.advertised;
    ClusterInfo {
        members: vec![MemberInfo {
            instance_id: Some(IdStyle::Text.write(advertised.instance)),
            time_stamp: context.log.now_ticks(),
            state: VNodeState::Leader.into(),
            is_alive: true,
            http_end_point: Some(EndPoint {
                address: advertised.host.clone(),
                port: u32::from(advertised.port),
            }),
        }],
    }
}
