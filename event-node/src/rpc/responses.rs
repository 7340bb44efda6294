//! Response streams that cannot end with OK by accident.
//!
//! Clients take a subscription that ends with OK for a defect of theirs (one spins, one panics),
//! so OK must be said; a producer that just goes away, at a shutdown for one, means UNAVAILABLE.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{log::LogError, rpc::status::stopping};

/// Responses that may wait for the network before the producer has to.
const MAX_WAITING_RESPONSES: usize = 64;

/// One step of a response stream.
enum Item<T> {
    Message(T),
    /// Ends the stream with an error.
    Failed(Status),
    /// Ends the stream with OK.
    Done,
}

/// Why a producer stops early.
pub(crate) enum End {
    /// Nobody listens any more, or the node is stopping.
    Gone,
    Failed(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl From<LogError> for End {
    fn from(error: LogError) -> Self {
        Self::Failed(error.into())
    }
}

/// Where a producer puts its responses.
pub(crate) struct Sink<T> {
    sender: mpsc::Sender<Item<T>>,
    stop: CancellationToken,
}

/// The stream that tonic sends.
pub(crate) struct Responses<T> {
    receiver: mpsc::Receiver<Item<T>>,
    ended: bool,
}

/// A sink and the stream that it feeds.
pub(crate) fn channel<T>(stop: CancellationToken) -> (Sink<T>, Responses<T>) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING_RESPONSES);
    (Sink { sender, stop }, Responses { receiver, ended: false })
}

impl<T> Sink<T> {
    /// Waits for room, and sends.
    pub(crate) async fn send(&self, message: T) -> Result<(), End> {
        self.put(Item::Message(message)).await
    }

    /// Says how the stream ends.
    pub(crate) async fn end(self, result: Result<(), End>) {
        let last = match result {
            Ok(()) => Item::Done,
            Err(End::Failed(status)) => Item::Failed(status),
            Err(End::Gone) => return,
        };
        // Whoever has gone needs no ending.
        drop(self.put(last).await);
    }

    /// Resolves when nobody listens any more or the node is stopping.
    pub(crate) async fn gone(&self) {
        tokio::select! {
            () = self.sender.closed() => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn put(&self, item: Item<T>) -> Result<(), End> {
        tokio::select! {
            sent = self.sender.send(item) => sent.map_err(|_| End::Gone),
            () = self.stop.cancelled() => Err(End::Gone),
        }
    }
}

impl<T> Stream for Responses<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match self.receiver.poll_recv(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Item::Message(message))) => return Poll::Ready(Some(Ok(message))),
            Poll::Ready(Some(Item::Failed(status))) => Some(Err(status)),
            Poll::Ready(Some(Item::Done)) => None,
            Poll::Ready(None) => Some(Err(stopping())),
        };
        self.ended = true;
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    async fn all(responses: Responses<u8>) -> Vec<Result<u8, tonic::Code>> {
        responses.map(|next| next.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn a_finished_producer_ends_with_ok() {
        let (sink, responses) = channel(CancellationToken::new());
        assert!(sink.send(7).await.is_ok());
        sink.end(Ok(())).await;
        assert_eq!(all(responses).await, [Ok(7)]);
    }

    #[tokio::test]
    async fn a_producer_that_goes_away_ends_with_unavailable() {
        let (sink, responses) = channel(CancellationToken::new());
        assert!(sink.send(7).await.is_ok());
        drop(sink);
        assert_eq!(all(responses).await, [Ok(7), Err(tonic::Code::Unavailable)]);
    }

    #[tokio::test]
    async fn a_stop_frees_a_producer_whose_client_does_not_read() {
        let stop = CancellationToken::new();
        let (sink, responses) = channel(stop.clone());
        for number in 0..MAX_WAITING_RESPONSES {
            assert!(sink.send(u8::try_from(number).unwrap()).await.is_ok());
        }
        stop.cancel();
        assert!(matches!(sink.send(0).await, Err(End::Gone)));
        drop(sink);
        assert_eq!(all(responses).await.last(), Some(&Err(tonic::Code::Unavailable)));
    }
}
