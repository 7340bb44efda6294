//! Calls that end when the time is over that their caller gives them.

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

/// Header that gives a call its time, as a number and a unit.
const TIMEOUT: &str = "grpc-timeout";

/// What a call is told whose time is over.
const EXCEEDED: &str = "Deadline Exceeded";

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// When the call with these headers has to be over. What is not a time sets no limit.
pub(crate) fn deadline_of(headers: &HeaderMap) -> Option<Instant> {
    let limit = time_limit(headers.get(TIMEOUT)?.to_str().ok()?)?;
    Instant::now().checked_add(limit)
}

fn time_limit(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back().filter(char::is_ascii)?;
    let digits =
        text.get(..text.len() - 1).filter(|it| it.bytes().all(|it| it.is_ascii_digit()))?;
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

/// Answers with what `answered` resolves to, or at the deadline that it is over.
pub(crate) async fn answer_until<E>(
    deadline: Option<Instant>,
    answered: impl Future<Output = Result<Response<Body>, E>>,
) -> Result<Response<Body>, E> {
    let Some(deadline) = deadline else { return answered.await };
    match timeout_at(deadline, answered).await {
        Err(_) => Ok(Status::deadline_exceeded(EXCEEDED).into_http()),
        Ok(answer) => Ok(answer?.map(|body| {
            Body::new(BoundedBody { inner: body, over: Some(Box::pin(sleep_until(deadline))) })
        })),
    }
}

fn trailers() -> HeaderMap {
    let code = HeaderValue::from(i32::from(Code::DeadlineExceeded));
    let message = HeaderValue::from_static(EXCEEDED);
    HeaderMap::from_iter([(STATUS, code), (MESSAGE, message)])
}

/// A response that goes on no longer than until the deadline.
struct BoundedBody {
    inner: Body,
    /// `None` once the deadline has ended the response.
    over: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(over) = &mut self.over else { return Poll::Ready(None) };
        // A response that never lets its reader wait has to end as well.
        if over.as_mut().poll(context).is_pending() {
            return Pin::new(&mut self.inner).poll_frame(context);
        }
        self.over = None;
        // Lets its producer go.
        self.inner = Body::empty();
        Poll::Ready(Some(Ok(Frame::trailers(trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.over.is_none() || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit_and_anything_else_is_no_limit() {
        let millis = |text| time_limit(text).map(|limit| limit.as_millis());
        assert_eq!(millis("500m"), Some(500));
        assert_eq!(millis("2S"), Some(2_000));
        assert_eq!(millis("1M"), Some(60_000));
        assert_eq!(millis("99999999H"), Some(99_999_999 * 3_600_000));
        for text in ["", "S", "x", "-1S", "+1S", "1.5S", "1s", "1", "0S", "1\u{e9}"] {
            assert_eq!(time_limit(text), None, "{text}");
        }
    }
}
