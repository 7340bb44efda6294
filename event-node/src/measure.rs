//! The store without its gRPC surface, for `benches` (feature `measure`).

use std::path::Path;

use prost::bytes::Bytes;
use service_kit::clock::Clock;

use crate::log::{
    AllQuery, Append, Direction, ExpectedRevision, Log, LogError, MAX_PAGE_EVENTS, NewEvent,
    OpenError, WriteOutcome, WriteRequest,
};

#[derive(Clone)]
pub struct Store {
    log: Log,
}

impl Store {
    /// Opens the store in `folder`, or creates it.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, OpenError> {
        Log::open(folder, clock, false).map(|log| Self { log })
    }

    /// Appends one event per body durably and returns the position of the last one.
    pub async fn append(&self, stream: String, bodies: Vec<Bytes>) -> Result<u64, LogError> {
        let event = |data| NewEvent::new(self.log.clock().new_id(), "happened", false, data);
        let events = bodies.into_iter().map(event).collect();
        let append = Append { stream, expected: ExpectedRevision::Any, events };
        Ok(match self.log.write(WriteRequest::Append(append)).await? {
            WriteOutcome::Written { position, .. } => position.unwrap_or(0),
            WriteOutcome::WrongExpectedVersion { .. } | WriteOutcome::StreamDeleted => 0,
        })
    }

    /// Reads `$all` forwards after position `from` and returns the number of events.
    pub async fn read_forward(&self, mut from: u64) -> Result<u64, LogError> {
        let mut count = 0;
        loop {
            let (direction, until) = (Direction::Forwards, self.log.head());
            let limit = MAX_PAGE_EVENTS;
            let query = AllQuery { direction, from, until, limit, filter: None };
            let page = self.log.read_all(query).await?;
            count += page.events.len() as u64;
            from = page.scanned_to;
            if page.at_end {
                return Ok(count);
            }
        }
    }

    /// Returns the position of the last event.
    pub fn head(&self) -> u64 {
        self.log.head()
    }

    /// Commits all queued writes and closes the store.
    pub async fn close(&self) {
        self.log.close().await;
    }
}
