//! Authentication of calls, if the node has users.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{Request, header::AUTHORIZATION};
use tonic::{Status, body::Body, transport::server::TcpConnectInfo};

use crate::{
    access::{AuthenticationError, Authenticator},
    rpc::status::{too_many_failed_attempts, unauthenticated},
};

/// Adds the caller to the request.
pub(super) async fn authenticate_request(
    authenticator: &Authenticator,
    mut request: Request<Body>,
) -> Result<Request<Body>, Status> {
    let connection = request.extensions().get::<TcpConnectInfo>();
    // Unknown if the client has closed the connection meanwhile.
    let address = connection
        .and_then(TcpConnectInfo::remote_addr)
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip().to_canonical());
    let header = request.headers().get(AUTHORIZATION).cloned();
    let caller = authenticator.authenticate(header.as_ref(), address).await;
    let caller = caller.map_err(|error| match error {
        AuthenticationError::Rejected => unauthenticated(),
        AuthenticationError::TooManyFailures => too_many_failed_attempts(),
    })?;
    request.extensions_mut().insert(caller);
    Ok(request)
}
