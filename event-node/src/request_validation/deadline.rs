//! Deadlines that callers set for their calls.

use std::{
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame};
use prost::bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::{Code, Status, body::Body};

/// Header with the time limit of a call, as a number and a unit.
const TIMEOUT: &str = "grpc-timeout";

/// Status message of a call whose deadline has passed.
const EXCEEDED: &str = "Deadline Exceeded";

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Returns the deadline of a call with these headers. An invalid time limit counts as none.
pub(crate) fn parse_deadline(headers: &HeaderMap) -> Option<Instant> {
    let limit = parse_time_limit(headers.get(TIMEOUT)?.to_str().ok()?)?;
    Instant::now().checked_add(limit)
}

fn parse_time_limit(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back().filter(char::is_ascii)?;
    let digits = text
        .get(..text.len() - 1)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let number = u64::from_str(digits).ok()?;
    let limit = match unit {
        'H' => Duration::from_secs(number.saturating_mul(3_600)),
        'M' => Duration::from_secs(number.saturating_mul(60)),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(limit).filter(|limit| !limit.is_zero())
}

/// Returns the response of the call. At the deadline the call, or its response body, ends with
/// `DEADLINE_EXCEEDED`.
pub(crate) async fn respond_until<E>(
    deadline: Option<Instant>,
    response: impl Future<Output = Result<Response<Body>, E>>,
) -> Result<Response<Body>, E> {
    let Some(deadline) = deadline else { return response.await };
    match timeout_at(deadline, response).await {
        Err(_) => Ok(Status::deadline_exceeded(EXCEEDED).into_http()),
        Ok(response) => Ok(response?.map(|body| {
            Body::new(DeadlineBody { inner: body, timer: Some(Box::pin(sleep_until(deadline))) })
        })),
    }
}

fn deadline_trailers() -> HeaderMap {
    let code = HeaderValue::from(i32::from(Code::DeadlineExceeded));
    let message = HeaderValue::from_static(EXCEEDED);
    HeaderMap::from_iter([(STATUS, code), (MESSAGE, message)])
}

/// A response body that ends at the deadline.
struct DeadlineBody {
    inner: Body,
    /// `None` after the deadline has ended the response.
    timer: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(timer) = &mut self.timer else { return Poll::Ready(None) };
        // Polls the timer before the body. A body that always has a frame ready would never end
        // otherwise.
        if timer.as_mut().poll(context).is_pending() {
            return Pin::new(&mut self.inner).poll_frame(context);
        }
        self.timer = None;
        // Drops the body, which stops its producer.
        self.inner = Body::empty();
        Poll::Ready(Some(Ok(Frame::trailers(deadline_trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.timer.is_none() || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_time_limits_count_as_no_limit() {
        let millis = |text| parse_time_limit(text).map(|limit| limit.as_millis());
        assert_eq!(millis("500m"), Some(500));
        assert_eq!(millis("2S"), Some(2_000));
        assert_eq!(millis("1M"), Some(60_000));
        assert_eq!(millis("99999999H"), Some(99_999_999 * 3_600_000));
        for text in ["", "S", "x", "-1S", "+1S", "1.5S", "1s", "1", "0S", "1\u{e9}"] {
            assert_eq!(parse_time_limit(text), None, "{text}");
        }
    }
}
