//! Counts calls for the metrics: a call ends with the body of its response.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::http::{HeaderMap, HeaderName, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::Bytes;
use tonic::{Code, Status, body::Body};

use crate::metrics::{CallFailure, CurrentCall, count_failed_call};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Counts the call as ended when the body of its response ends or is dropped, and as failed if its
/// status is an error.
pub(super) fn count_until_ended(response: Response<Body>, call: CurrentCall) -> Response<Body> {
    // A response without a message has the status in its headers.
    count_failure(response.headers());
    response.map(|inner| Body::new(CountedBody { inner, _call: call }))
}

fn count_failure(headers: &HeaderMap) {
    let Some(status) = headers.get(STATUS) else { return };
    let code = Code::from_bytes(status.as_bytes());
    if code == Code::Ok {
        return;
    }
    let known = [
        (Code::Unimplemented, CallFailure::Unimplemented),
        (Code::DeadlineExceeded, CallFailure::DeadlineExceeded),
    ];
    let failure = known.into_iter().find(|(known, _)| *known == code);
    count_failed_call(failure.map_or(CallFailure::Other, |(_, failure)| failure));
}

struct CountedBody {
    inner: Body,
    _call: CurrentCall,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            count_failure(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
