//! One call through the proxy.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::sync::broadcast;

use super::changes::Changes;
use super::frames::Frames;
use super::{CallEnd, Refusal, State, When};

/// Forwards a call to the target, or injects its fault.
pub(super) async fn forward_call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    target: SendRequest<Bytes>,
    state: &State,
) -> Result<(), h2::Error> {
    // `/event_store.client.streams.Streams/Read` is `Streams/Read` for short.
    let method = request.uri().path().rsplit('.').next().unwrap_or_default().to_owned();
    // Before the call is counted: a test that waits for the count may inject its fault at once.
    let ends = state.ends.subscribe();
    let stalls = state.stalls.subscribe();
    state.count_call(&method);
    // Every node of a real cluster answers discovery, leader or not.
    let needs_leader =
        request.headers().get("requires-leader").is_some_and(|value| value == "true");
    let fault = state.take_fault(&method, needs_leader);
    if let Some((refusal, When::Before)) = &fault {
        return respond_with_status(&mut respond, refusal);
    }
    let (head, body) = request.into_parts();
    let mut target = target.ready().await?;
    let (response, to_target) = target.send_request(Request::from_parts(head, ()), false)?;
    let changes = Changes::new(method.clone(), state.filter.clone());
    let forwarding_request = async {
        match forward_request(body, to_target, &changes).await {
            Some(refusal) => CallEnd::Status(refusal),
            // The end of the request is not the end of the call.
            None => std::future::pending().await,
        }
    };
    let mut answer = None;
    let forwarding_response = async {
        let response = response.await?;
        if let Some((refusal, _)) = &fault {
            // Read to the end: the store must have executed the call before the client is refused.
            let mut body = response.into_body();
            while let Some(data) = body.data().await {
                body.flow_control().release_capacity(data?.len())?;
            }
            return respond_with_status(&mut respond, refusal);
        }
        tokio::select! {
            forwarded = forward_response(response, &mut respond, &mut answer, &changes) => forwarded,
            () = wait_for_fault(stalls, &method) => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        forwarded = forwarding_response => return forwarded,
        end = forwarding_request => end,
        end = wait_for_fault(ends, &method) => end,
    };
    match (ended, answer) {
        (CallEnd::Status(status), Some(mut answer)) => {
            answer.send_trailers(status_trailers(&status))
        }
        (CallEnd::Status(status), None) => respond_with_status(&mut respond, &status),
        (CallEnd::Reset, Some(mut answer)) => {
            answer.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        (CallEnd::Reset, None) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
    }
}

/// Waits until the test injects a fault into the calls of a method, or of all methods (an empty name).
async fn wait_for_fault<F: Clone>(mut faults: broadcast::Receiver<(String, F)>, method: &str) -> F {
    loop {
        match faults.recv().await {
            Ok((name, fault)) if name.is_empty() || name == method => return fault,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Forwards the request. Returns a refusal if one of its messages is refused.
async fn forward_request(
    mut body: RecvStream,
    mut to_target: SendStream<Bytes>,
    changes: &Changes,
) -> Option<Refusal> {
    let mut frames = Frames::default();
    loop {
        match body.data().await {
            Some(Ok(data)) => {
                if body.flow_control().release_capacity(data.len()).is_err() {
                    return None;
                }
                let data = match changes.change_request(&mut frames, data) {
                    Ok(data) => data,
                    Err(refusal) => {
                        to_target.send_reset(Reason::CANCEL);
                        return Some(refusal);
                    }
                };
                // An empty frame may carry the end of the stream. Others are not forwarded: HTTP/2 servers
                // treat many of them as an attack.
                if !data.is_empty() && to_target.send_data(data, false).is_err() {
                    return None;
                }
            }
            // The client cancelled the call.
            Some(Err(_)) => {
                to_target.send_reset(Reason::CANCEL);
                return None;
            }
            None => {
                drop(to_target.send_data(Bytes::new(), true));
                return None;
            }
        }
    }
}

/// Forwards the response, whose sending half is put into `answer`.
async fn forward_response(
    response: Response<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    answer: &mut Option<SendStream<Bytes>>,
    changes: &Changes,
) -> Result<(), h2::Error> {
    let (head, mut body) = response.into_parts();
    let is_over = body.is_end_stream();
    let sending = respond.send_response(Response::from_parts(head, ()), is_over)?;
    if is_over {
        return Ok(());
    }
    let answer = answer.insert(sending);
    let mut frames = Frames::default();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        let (data, end) = changes.change_response(&mut frames, data);
        if !data.is_empty() {
            answer.send_data(data, false)?;
        }
        if let Some(refusal) = end {
            return answer.send_trailers(status_trailers(&refusal));
        }
    }
    match body.trailers().await? {
        Some(trailers) => answer.send_trailers(trailers),
        None => answer.send_data(Bytes::new(), true),
    }
}

/// Responds with a status and no message.
fn respond_with_status(
    respond: &mut SendResponse<Bytes>,
    refusal: &Refusal,
) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.headers_mut() = status_trailers(refusal);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    respond.send_response(response, true).map(drop)
}

fn status_trailers(refusal: &Refusal) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).expect("the text is a valid header value");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", refusal.code.into());
    trailers.insert("grpc-message", value(&refusal.message));
    for (name, text) in &refusal.trailers {
        trailers.insert(*name, value(text));
    }
    trailers
}
