//! Gossip.Read: a cluster of one node, the leader.

use tonic::{Extensions, codegen::http::uri::Authority};
use uuid::Uuid;

use crate::{
    rpc::{Context, convert::IdFormat},
    wire::event_store::client::gossip::{
        ClusterInfo, EndPoint, MemberInfo, member_info::VNodeState,
    },
};

/// The address that gossip names.
#[derive(Debug, Clone)]
pub(crate) struct AdvertisedAddress {
    pub instance_id: Uuid,
    /// Host and port of `node.advertise`.
    pub configured: Option<(String, u16)>,
    /// Host and port that the node listens on.
    pub listened: (String, u16),
}

impl AdvertisedAddress {
    /// Returns the configured address. Without one, returns the address that the client has called.
    fn end_point(&self, called: Option<&Authority>) -> EndPoint {
        let called = called.and_then(|called| Some((called.host().to_owned(), called.port_u16()?)));
        let (address, port) =
            self.configured.clone().or(called).unwrap_or_else(|| self.listened.clone());
        EndPoint { address, port: u32::from(port) }
    }
}

/// Returns the cluster. `extensions` are those of the request, with the address that the client has
/// called.
pub(crate) fn cluster_info(context: &Context, extensions: &Extensions) -> ClusterInfo {
    let advertised = &context.advertised;
    ClusterInfo {
        members: vec![MemberInfo {
            instance_id: Some(IdFormat::Structured.format_id(advertised.instance_id)),
            time_stamp: context.log.now_ticks(),
            state: VNodeState::Leader.into(),
            is_alive: true,
            http_end_point: Some(advertised.end_point(extensions.get())),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_address_precedes_called_and_listened_address() {
        let mut advertised = AdvertisedAddress {
            instance_id: Uuid::nil(),
            configured: None,
            listened: ("0.0.0.0".to_owned(), 1),
        };
        let called = Authority::from_static("store.example:2");
        let end_point = |advertised: &AdvertisedAddress, called| {
            let EndPoint { address, port } = advertised.end_point(called);
            format!("{address}:{port}")
        };
        assert_eq!(end_point(&advertised, None), "0.0.0.0:1");
        assert_eq!(end_point(&advertised, Some(&called)), "store.example:2");
        advertised.configured = Some(("other.example".to_owned(), 3));
        assert_eq!(end_point(&advertised, Some(&called)), "other.example:3");
    }
}
