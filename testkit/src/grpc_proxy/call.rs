//! One call through the proxy.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::sync::broadcast;

use super::changes::Changes;
use super::{End, Refusal, State, When};
use crate::strict_store::Frames;

/// Passes a call on to the target, or lets it meet its fault.
pub(super) async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    target: SendRequest<Bytes>,
    state: &State,
) -> Result<(), h2::Error> {
    // `/event_store.client.streams.Streams/Read` is `Streams/Read` for short.
    let method = request.uri().path().rsplit('.').next().unwrap_or_default().to_owned();
    let mut ends = state.ends.subscribe();
    let silences = state.silences.subscribe();
    state.count_call(&method);
    // As a real node: discovery is answered by every node, leader or not.
    let needs_leader = request.headers().get("requires-leader").is_some_and(|it| it == "true");
    let fault = state.fault_for(&method, needs_leader);
    if let Some((refusal, When::Before)) = &fault {
        return refuse(&mut respond, refusal);
    }
    let (head, body) = request.into_parts();
    let mut target = target.ready().await?;
    let (response, to_target) = target.send_request(Request::from_parts(head, ()), false)?;
    let changes = Changes::new(method.clone(), state.strictness.clone());
    let uploading = async {
        match upload(body, to_target, &changes).await {
            Some(refusal) => End::Status(refusal),
            None => std::future::pending().await,
        }
    };
    let mut answer = None;
    let downloading = async {
        let response = response.await?;
        if let Some((refusal, _)) = &fault {
            let mut body = response.into_body();
            while let Some(data) = body.data().await {
                body.flow_control().release_capacity(data?.len())?;
            }
            return refuse(&mut respond, refusal);
        }
        tokio::select! {
            downloaded = download(response, &mut respond, &mut answer, &changes) => downloaded,
            () = until_silenced(silences, &method) => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        served = downloading => return served,
        end = uploading => end,
        end = until_ended(&mut ends, &method) => end,
    };
    match (ended, answer) {
        (End::Status(status), Some(mut answer)) => answer.send_trailers(trailers(&status)),
        (End::Status(status), None) => refuse(&mut respond, &status),
        (End::Reset, Some(mut answer)) => {
            answer.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        (End::Reset, None) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
    }
}

/// Waits until the call is to be ended.
async fn until_ended(ends: &mut broadcast::Receiver<(String, End)>, method: &str) -> End {
    loop {
        match ends.recv().await {
            Ok((ended, end)) if ended.is_empty() || ended == method => return end,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Waits until the call is to fall silent.
async fn until_silenced(mut silences: broadcast::Receiver<String>, method: &str) {
    loop {
        match silences.recv().await {
            Ok(name) if name == method => return,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Passes the request on. Returns with a refusal if a message of it is refused.
async fn upload(
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
                // An end may come as an empty part. HTTP/2 servers count those of others as abuse.
                if !data.is_empty() && to_target.send_data(data, false).is_err() {
                    return None;
                }
            }
            // The caller has gone: so does the call.
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

async fn download(
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
            return answer.send_trailers(trailers(&refusal));
        }
    }
    match body.trailers().await? {
        Some(trailers) => answer.send_trailers(trailers),
        None => answer.send_data(Bytes::new(), true),
    }
}

/// Answers with a status and nothing else.
fn refuse(respond: &mut SendResponse<Bytes>, refusal: &Refusal) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.headers_mut() = trailers(refusal);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    respond.send_response(response, true).map(drop)
}

fn trailers(refusal: &Refusal) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).expect("a test's text fits a header");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", refusal.code.into());
    trailers.insert("grpc-message", value(&refusal.message));
    for (name, text) in &refusal.trailers {
        trailers.insert(*name, value(text));
    }
    trailers
}
