//! The store without its gRPC surface, for the measurements in `benches` (feature `measure`).

use std::path::Path;

use prost::bytes::Bytes;
use service_kit::clock::Clock;

use crate::log::{
    AllQuery, Append, Direction, Expected, Log, LogError, MAX_PAGE_EVENTS, NewEvent, OpenError,
    Outcome, Write,
};

/// An open store.
#[derive(Clone)]
pub struct Store {
    log: Log,
}

impl Store {
    /// Opens the store in `folder`, creating it if need be.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, OpenError> {
        Log::open(folder, clock, false).map(|log| Self { log })
    }

    /// Appends these bodies durably, each an event with an id of its own. Answers the position of
    /// the last one.
    pub async fn append(&self, stream: String, bodies: Vec<Bytes>) -> Result<u64, LogError> {
        let event = |data| NewEvent {
            id: self.log.clock().new_id(),
            event_type: "happened".to_owned(),
            is_json: false,
            metadata: Bytes::new(),
            data,
        };
        let events = bodies.into_iter().map(event).collect();
        let append = Append { stream, expected: Expected::Any, events };
        Ok(match self.log.write(Write::Append(append)).await? {
            Outcome::Written { position, .. } => position.unwrap_or(0),
            Outcome::WrongExpectedVersion { .. } | Outcome::StreamDeleted => 0,
        })
    }

    /// Reads `$all` forward behind the position `from`. Answers how many events there were.
    pub async fn read_forward(&self, mut from: u64) -> Result<u64, LogError> {
        let mut count = 0;
        loop {
            let (direction, until) = (Direction::Forwards, self.log.head());
            let limit = MAX_PAGE_EVENTS;
            let query = AllQuery { direction, from, until, limit, filter: None };
            let page = self.log.read_all(query).await?;
            count += page.events.len() as u64;
            from = page.looked_to;
            if page.at_end {
                return Ok(count);
            }
        }
    }

    /// Position of the last event.
    pub fn head(&self) -> u64 {
        self.log.head()
    }

    /// Finishes what was asked for and closes the store.
    pub async fn close(&self) {
        self.log.close().await;
    }
}
