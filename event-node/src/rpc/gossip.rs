//! Gossip.Read: a cluster of one, which is its own leader.

use std::task::{Context as TaskContext, Poll};

use tonic::{
    Extensions,
    codegen::{
        Service,
        http::{Request, uri::Authority},
    },
    server::NamedService,
};
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
    /// What the settings say.
    pub configured: Option<(String, u16)>,
    /// What is listened on.
    pub listened: (String, u16),
}

impl Advertised {
    /// The configured address; without one, that by which the caller reached this node.
    fn end_point(&self, asked: Option<&Authority>) -> EndPoint {
        let asked = asked.and_then(|it| Some((it.host().to_owned(), it.port_u16()?)));
        let (address, port) =
            self.configured.clone().or(asked).unwrap_or_else(|| self.listened.clone());
        EndPoint { address, port: u32::from(port) }
    }
}

pub(crate) fn cluster(context: &Context, extensions: &Extensions) -> ClusterInfo {
    let advertised = &context.advertised;
    ClusterInfo {
        members: vec![MemberInfo {
            instance_id: Some(IdStyle::Structured.write(advertised.instance)),
            time_stamp: context.log.now_ticks(),
            state: VNodeState::Leader.into(),
            is_alive: true,
            http_end_point: Some(advertised.end_point(extensions.get())),
        }],
    }
}

/// A service that is told the address its caller used.
#[derive(Clone)]
pub(crate) struct WithAuthority<S>(pub S);

impl<S: NamedService> NamedService for WithAuthority<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for WithAuthority<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if let Some(authority) = request.uri().authority().cloned() {
            request.extensions_mut().insert(authority);
        }
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_wins_over_what_was_asked_and_that_over_what_is_listened_on() {
        let mut advertised = Advertised {
            instance: Uuid::nil(),
            configured: None,
            listened: ("0.0.0.0".to_owned(), 1),
        };
        let asked = Authority::from_static("store.example:2");
        let told = |it: &Advertised, asked| {
            let EndPoint { address, port } = it.end_point(asked);
            format!("{address}:{port}")
        };
        assert_eq!(told(&advertised, None), "0.0.0.0:1");
        assert_eq!(told(&advertised, Some(&asked)), "store.example:2");
        advertised.configured = Some(("other.example".to_owned(), 3));
        assert_eq!(told(&advertised, Some(&asked)), "other.example:3");
    }
}
