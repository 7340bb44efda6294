//! Reads of a stream and of all events.

use eventstore::{ReadAllOptions, ReadStream, ReadStreamOptions, ResolvedEvent, StreamPosition};
use jiff::Timestamp;
use uuid::Uuid;

use super::client::{Position, StoreClient};
use super::error::LogError;
use super::logged_event::created_at;

/// Events, as far as a read took them.
pub(crate) struct ReadPortion {
    pub(crate) events: Vec<ResolvedEvent>,
    /// Whether the read stopped because of its limit of bytes.
    pub(crate) is_cut: bool,
}

/// Returns options for a read of all events from a position on; the event at the position is
/// included.
pub(crate) fn read_all_after(after: Option<Position>) -> ReadAllOptions {
    ReadAllOptions::default().forwards().position(Position::to_start(after)).max_count(usize::MAX)
}

impl StoreClient {
    /// Returns whether the store answers.
    pub async fn ping(&self) -> Result<(), LogError> {
        self.head().await.map(drop)
    }

    /// Returns the position of the newest event; `None` if there is none.
    pub async fn head(&self) -> Result<Option<Position>, LogError> {
        let options =
            ReadAllOptions::default().backwards().position(StreamPosition::End).max_count(1);
        let newest = self.read_one_of_all(&options).await?;
        Ok(newest.map(|event| event.get_original_event().position.into()))
    }

    /// Returns the id of the store's first event, which identifies the store; `None` if there is
    /// none.
    pub async fn store_id(&self) -> Result<Option<Uuid>, LogError> {
        let oldest = self.read_one_of_all(&read_all_after(None).max_count(1)).await?;
        Ok(oldest.map(|event| event.get_original_event().id))
    }

    /// Returns when the oldest event was written that the store still has; `None` if there is none.
    pub async fn oldest_event_at(&self) -> Result<Option<Timestamp>, LogError> {
        let oldest = self.read_one_of_all(&read_all_after(None).max_count(1)).await?;
        Ok(oldest.and_then(|event| created_at(event.get_original_event())))
    }

    pub(crate) async fn read_one_of_all(
        &self,
        options: &ReadAllOptions,
    ) -> Result<Option<ResolvedEvent>, LogError> {
        self.call(async |client| client.read_all(options).await?.next().await).await
    }

    /// Returns the last event of a stream at or before a position; `None` if there is none.
    pub(crate) async fn read_last_event(
        &self,
        stream: &str,
        from: StreamPosition<u64>,
    ) -> Result<Option<ResolvedEvent>, LogError> {
        let options = ReadStreamOptions::default().backwards().position(from).max_count(1);
        Ok(self.read_stream(stream, &options).await?.pop())
    }

    /// Returns the first event of a stream that the store still has; `None` if there is none.
    pub(crate) async fn read_first_event(
        &self,
        stream: &str,
    ) -> Result<Option<ResolvedEvent>, LogError> {
        let options = ReadStreamOptions::default().position(StreamPosition::Start).max_count(1);
        Ok(self.read_stream(stream, &options).await?.pop())
    }

    /// Reads events of a stream. A stream that does not exist has none.
    pub(crate) async fn read_stream(
        &self,
        stream: &str,
        options: &ReadStreamOptions,
    ) -> Result<Vec<ResolvedEvent>, LogError> {
        Ok(self.read_portion(stream, options, usize::MAX).await?.events)
    }

    /// Reads events of a stream, up to the one with which data and metadata reach `max_bytes`. A stream
    /// that does not exist has none.
    pub(crate) async fn read_portion(
        &self,
        stream: &str,
        options: &ReadStreamOptions,
        max_bytes: usize,
    ) -> Result<ReadPortion, LogError> {
        self.call(async |client| {
            take_portion(client.read_stream(stream, options).await?, max_bytes).await
        })
        .await
    }

    /// Reads events of all streams, up to the one with which data and metadata reach `max_bytes`.
    pub(crate) async fn read_all_portion(
        &self,
        options: &ReadAllOptions,
        max_bytes: usize,
    ) -> Result<ReadPortion, LogError> {
        self.call(async |client| take_portion(client.read_all(options).await?, max_bytes).await)
            .await
    }
}

async fn take_portion(mut read: ReadStream, max_bytes: usize) -> eventstore::Result<ReadPortion> {
    let mut portion = ReadPortion { events: Vec::new(), is_cut: false };
    let mut n_bytes = 0;
    loop {
        match read.next().await {
            Ok(Some(resolved)) => {
                let event = resolved.get_original_event();
                n_bytes += event.data.len() + event.custom_metadata.len();
                portion.events.push(resolved);
                if n_bytes >= max_bytes {
                    portion.is_cut = true;
                    return Ok(portion);
                }
            }
            // The first `next` reports a stream that does not exist, not `read_stream`.
            Ok(None) | Err(eventstore::Error::ResourceNotFound) => return Ok(portion),
            Err(error) => return Err(error),
        }
    }
}
