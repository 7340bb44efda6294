//! Response streams that end with OK only if their producer says so.
//!
//! Some official clients do not handle a subscription that ends with OK: one spins, one panics. So
//! a producer that is dropped, for example at a shutdown, ends its stream with UNAVAILABLE.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{log::LogError, rpc::status::server_stopping};

/// Maximum number of responses that wait for the network. The producer waits when it is reached.
const MAX_WAITING_RESPONSES: usize = 64;

enum StreamItem<T> {
    Message(T),
    /// Ends the stream with a status.
    Failed(Status),
    /// Ends the stream with OK.
    Completed,
}

/// Why a producer stops early.
pub(crate) enum StreamEnd {
    /// The client has gone, or the node is stopping.
    Closed,
    Failed(Status),
}

impl From<Status> for StreamEnd {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl From<LogError> for StreamEnd {
    fn from(error: LogError) -> Self {
        Self::Failed(error.into())
    }
}

/// The producer's end of a response stream.
pub(crate) struct ResponseSink<T> {
    sender: mpsc::Sender<StreamItem<T>>,
    stop: CancellationToken,
}

/// The stream that tonic sends.
pub(crate) struct ResponseStream<T> {
    receiver: mpsc::Receiver<StreamItem<T>>,
    has_ended: bool,
}

/// Creates a sink and the stream that it feeds.
pub(crate) fn response_channel<T>(stop: CancellationToken) -> (ResponseSink<T>, ResponseStream<T>) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING_RESPONSES);
    (ResponseSink { sender, stop }, ResponseStream { receiver, has_ended: false })
}

impl<T> ResponseSink<T> {
    /// Sends a response. Waits until there is room.
    pub(crate) async fn send(&self, message: T) -> Result<(), StreamEnd> {
        self.send_item(StreamItem::Message(message)).await
    }

    /// Ends the stream with the status of `result`.
    pub(crate) async fn end_with(self, result: Result<(), StreamEnd>) {
        let last = match result {
            Ok(()) => StreamItem::Completed,
            Err(StreamEnd::Failed(status)) => StreamItem::Failed(status),
            Err(StreamEnd::Closed) => return,
        };
        // Sending fails if the client has gone. It then needs no status.
        drop(self.send_item(last).await);
    }

    /// Waits until the client has gone or the node is stopping.
    pub(crate) async fn wait_until_closed(&self) {
        tokio::select! {
            () = self.sender.closed() => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn send_item(&self, item: StreamItem<T>) -> Result<(), StreamEnd> {
        // A client that does not read fills the channel. Without `stop`, its producer would block
        // the shutdown.
        tokio::select! {
            sent = self.sender.send(item) => sent.map_err(|_| StreamEnd::Closed),
            () = self.stop.cancelled() => Err(StreamEnd::Closed),
        }
    }
}

impl<T> Stream for ResponseStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let next = match self.receiver.poll_recv(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(StreamItem::Message(message))) => {
                return Poll::Ready(Some(Ok(message)));
            }
            Poll::Ready(Some(StreamItem::Failed(status))) => Some(Err(status)),
            Poll::Ready(Some(StreamItem::Completed)) => None,
            // The producer was dropped without `end_with`.
            Poll::Ready(None) => Some(Err(server_stopping())),
        };
        self.has_ended = true;
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    async fn collect_all(responses: ResponseStream<u8>) -> Vec<Result<u8, tonic::Code>> {
        responses.map(|next| next.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn completed_producer_ends_with_ok() {
        let (sink, responses) = response_channel(CancellationToken::new());
        assert!(sink.send(7).await.is_ok());
        sink.end_with(Ok(())).await;
        assert_eq!(collect_all(responses).await, [Ok(7)]);
    }

    #[tokio::test]
    async fn dropped_producer_ends_with_unavailable() {
        let (sink, responses) = response_channel(CancellationToken::new());
        assert!(sink.send(7).await.is_ok());
        drop(sink);
        assert_eq!(collect_all(responses).await, [Ok(7), Err(tonic::Code::Unavailable)]);
    }

    #[tokio::test]
    async fn stop_frees_producer_whose_client_does_not_read() {
        let stop = CancellationToken::new();
        let (sink, responses) = response_channel(stop.clone());
        for number in 0..MAX_WAITING_RESPONSES {
            assert!(sink.send(u8::try_from(number).unwrap()).await.is_ok());
        }
        stop.cancel();
        assert!(matches!(sink.send(0).await, Err(StreamEnd::Closed)));
        drop(sink);
        assert_eq!(collect_all(responses).await.last(), Some(&Err(tonic::Code::Unavailable)));
    }
}
