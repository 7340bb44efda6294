//! A response body that reports its end, to the access log and to the connection that carries it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http_body::{Frame, SizeHint};

use super::access_log::Entry;
use super::keep_alive::InFlightRequest;
use crate::metrics::ActiveRequest;

/// The request as the connection and the metrics count it.
pub(super) type CountedRequest = (Option<InFlightRequest>, Option<ActiveRequest>);

/// Logs `log_entry` and ends `counted` when the body of the response is sent in full or dropped.
pub(super) fn track_response(
    response: Response,
    log_entry: Option<Entry>,
    counted: CountedRequest,
) -> Response {
    if log_entry.is_none() && matches!(counted, (None, None)) {
        return response;
    }
    response.map(|body| Body::new(TrackedBody { body, log_entry, _counted: counted }))
}

struct TrackedBody {
    body: Body,
    log_entry: Option<Entry>,
    _counted: CountedRequest,
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        // hyper drops a body when it is sent in full, and when its client has gone.
        if let Some(entry) = &self.log_entry {
            entry.log_response();
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        if let (Some(entry), Some(data)) = (&mut self.log_entry, data) {
            entry.add_bytes(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Without it, hyper would not know the length and send each body in chunks.
        self.body.size_hint()
    }
}
