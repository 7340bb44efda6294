//! An order's history, read in portions, so that a long history is never in memory as a whole.

use domain::ids::OrderId;
use domain::order::{Order, evolve};
use eventstore::{ReadStreamOptions, StreamPosition};

use super::event_log::EventLog;
use crate::store::error::LogError;
use crate::store::logged_event::LoggedEvent;
use crate::store::stream_metadata::{METASTREAM_PREFIX, StreamMetadata};

/// Maximum number of events in a portion.
const PORTION_EVENTS: usize = 500;
/// Size of data and metadata with which a portion ends, in bytes.
const PORTION_BYTES: usize = 1024 * 1024;

/// A reader of one order's events, the oldest first.
pub struct HistoryReader {
    log: EventLog,
    order_id: OrderId,
    /// Where the next portion begins; `None` behind the last.
    next: Option<u64>,
}

impl EventLog {
    /// Returns a reader of an order's events from a revision on, or from the first behind it that the
    /// store still has.
    pub fn read_history_from(&self, order_id: OrderId, revision: u64) -> HistoryReader {
        HistoryReader { log: self.clone(), order_id, next: Some(revision) }
    }

    /// Reads an order's whole history; empty if there is no such order.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if the store no longer has any of the order's events.
    pub async fn read_history(&self, order_id: OrderId) -> Result<Vec<LoggedEvent>, LogError> {
        let mut reader = self.read_history_from(order_id, 0);
        let mut history = Vec::new();
        while let Some(events) = reader.next().await? {
            history.extend(events);
        }
        // Only then, because the check costs a read: a deleted stream has no events.
        if history.is_empty() {
            self.refuse_deleted(order_id).await?;
        }
        Ok(history)
    }

    /// Loads an order as far as this release can decode its events; the others are skipped, as the
    /// projection does. `None` if there is no such order.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] if no event can be decoded; [`LogError::Deleted`].
    pub async fn load_readable(&self, order_id: OrderId) -> Result<Option<Order>, LogError> {
        let mut reader = self.read_history_from(order_id, 0);
        let mut order = None;
        let mut undecodable = None;
        while let Some(events) = reader.next().await? {
            for event in events {
                match event.decode() {
                    Ok(recorded) => order = Some(evolve(order, &recorded)),
                    Err(error) => undecodable = Some(error),
                }
            }
        }
        match (order, undecodable) {
            (Some(order), _) => Ok(Some(order)),
            (None, Some(error)) => Err(error),
            (None, None) => self.refuse_deleted(order_id).await.map(|()| None),
        }
    }

    /// Reads an order's tenant; `None` if it has none, or the store no longer has its first event.
    pub async fn read_tenant(&self, order_id: OrderId) -> Result<Option<String>, LogError> {
        match self.store.read_first_event(&order_id.stream_name()).await {
            Ok(first) => {
                let first = first.as_ref().and_then(LoggedEvent::from_resolved);
                Ok(first.and_then(|event| event.tenant()))
            }
            Err(LogError::Deleted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the revision of an order's newest event; `None` if there is no such order.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if the store no longer has any of the order's events.
    pub async fn newest_revision(&self, order_id: OrderId) -> Result<Option<u64>, LogError> {
        let newest =
            self.store.read_last_event(&order_id.stream_name(), StreamPosition::End).await?;
        if newest.is_none() {
            self.refuse_deleted(order_id).await?;
        }
        Ok(newest.map(|event| event.get_original_event().revision))
    }

    /// Returns an error if an order's stream was deleted but not tombstoned. The store accepts an
    /// append to such a stream that expects no stream, so the order would begin again.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if it was.
    pub async fn refuse_soft_deleted(&self, order_id: OrderId) -> Result<(), LogError> {
        let metadata = self.read_stream_metadata(order_id).await?;
        if metadata.is_soft_deleted() { Err(LogError::Deleted) } else { Ok(()) }
    }

    /// Returns an error if an order's stream is empty because its events were deleted or truncated,
    /// or have expired. Without this check the order would seem never to have existed.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if they were.
    pub async fn refuse_deleted(&self, order_id: OrderId) -> Result<(), LogError> {
        let metadata = self.read_stream_metadata(order_id).await?;
        if metadata.hides_events() { Err(LogError::Deleted) } else { Ok(()) }
    }

    async fn read_stream_metadata(&self, order_id: OrderId) -> Result<StreamMetadata, LogError> {
        let stream = format!("{METASTREAM_PREFIX}{}", order_id.stream_name());
        let newest = self.store.read_last_event(&stream, StreamPosition::End).await?;
        let metadata = newest.map(|event| StreamMetadata::parse(&event.get_original_event().data));
        Ok(metadata.unwrap_or_default())
    }
}

impl HistoryReader {
    /// Returns the next events; `None` after the last.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if the stream was tombstoned.
    pub async fn next(&mut self) -> Result<Option<Vec<LoggedEvent>>, LogError> {
        let Some(begin) = self.next else { return Ok(None) };
        let options = ReadStreamOptions::default()
            .forwards()
            .position(StreamPosition::Position(begin))
            .max_count(PORTION_EVENTS);
        let stream = self.order_id.stream_name();
        let portion = self.log.store.read_portion(&stream, &options, PORTION_BYTES).await?;
        // A full portion may be the last one: the next read returns nothing then.
        let is_last = !portion.is_cut && portion.events.len() < PORTION_EVENTS;
        let events: Vec<_> = portion.events.iter().filter_map(LoggedEvent::from_resolved).collect();
        self.next = events.last().filter(|_| !is_last).map(|last| last.revision + 1);
        Ok((!events.is_empty()).then_some(events))
    }
}
