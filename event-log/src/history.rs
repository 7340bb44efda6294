//! An order's stream, read portion by portion, so that a long history is never in memory as a whole.

use domain::ids::OrderId;
use domain::order::{Order, evolve};
use eventstore::{
    Client, Error as ClientError, ReadStream, ReadStreamOptions, RecordedEvent, ResolvedEvent,
    StreamPosition,
};
use serde::Deserialize;

use crate::client::EventLog;
use crate::error::LogError;
use crate::stream::LoggedEvent;

/// Maximum number of events of a portion.
const PORTION_EVENTS: usize = 500;
/// A portion ends with the event that makes its data and metadata this large, in bytes.
const PORTION_BYTES: usize = 1024 * 1024;
/// The type of the event that ends a tombstoned stream.
pub(crate) const TOMBSTONE_TYPE: &str = "$streamDeleted";
/// What the name of a stream's metadata begins with.
pub(crate) const METASTREAM_PREFIX: &str = "$$";
/// The `$tb` of a stream that was deleted, but not tombstoned.
const SOFT_DELETED: i64 = i64::MAX;

/// A reader of one order's events, the oldest first.
pub struct HistoryReader {
    log: EventLog,
    order_id: OrderId,
    /// Where the next portion begins; `None` behind the last.
    next: Option<u64>,
}

/// Events that follow each other in a stream.
struct Portion {
    events: Vec<LoggedEvent>,
    is_last: bool,
}

impl EventLog {
    /// Begins to read an order's events from a revision on, or from the first behind it that the
    /// store still has.
    pub fn history_from(&self, order_id: OrderId, revision: u64) -> HistoryReader {
        HistoryReader { log: self.clone(), order_id, next: Some(revision) }
    }

    /// Reads an order's stream from its beginning. No events: there is no such order.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if the store has none of the order's events any more;
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn history(&self, order_id: OrderId) -> Result<Vec<LoggedEvent>, LogError> {
        let mut reader = self.history_from(order_id, 0);
        let mut history = Vec::new();
        while let Some(events) = reader.next().await? {
            history.extend(events);
        }
        if history.is_empty() {
            self.refuse_deleted(order_id).await?;
        }
        Ok(history)
    }

    /// The order as far as this release can read its stream: events that it cannot read are passed
    /// over, as the projection does. `None`: there is no such order.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] if no event of it can be read; [`LogError::Deleted`];
    /// [`LogError::Unavailable`].
    pub async fn latest(&self, order_id: OrderId) -> Result<Option<Order>, LogError> {
        let mut reader = self.history_from(order_id, 0);
        let mut order = None;
        let mut unreadable = None;
        while let Some(events) = reader.next().await? {
            for event in events {
                match event.decode() {
                    Ok(recorded) => order = Some(evolve(order, &recorded)),
                    Err(error) => unreadable = Some(error),
                }
            }
        }
        match (order, unreadable) {
            (Some(order), _) => Ok(Some(order)),
            (None, Some(error)) => Err(error),
            (None, None) => self.refuse_deleted(order_id).await.map(|()| None),
        }
    }

    /// Whose order it is; `None` if it is nobody's in particular, or the store does not have its
    /// first event.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn tenant(&self, order_id: OrderId) -> Result<Option<String>, LogError> {
        let options =
            ReadStreamOptions::default().forwards().position(StreamPosition::Start).max_count(1);
        match self.read_one(&order_id.stream(), &options).await {
            Ok(first) => Ok(first.as_ref().and_then(LoggedEvent::of).and_then(|it| it.tenant())),
            Err(LogError::Deleted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the revision of the newest event of an order; `None`: there is no such order.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if the store has none of the order's events any more;
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn newest_revision(&self, order_id: OrderId) -> Result<Option<u64>, LogError> {
        let options =
            ReadStreamOptions::default().backwards().position(StreamPosition::End).max_count(1);
        let newest = self.read_one(&order_id.stream(), &options).await?;
        if newest.is_none() {
            self.refuse_deleted(order_id).await?;
        }
        Ok(newest.map(|it| it.get_original_event().revision))
    }

    /// Refuses an order whose stream was deleted but not tombstoned. The store takes an append to it
    /// that expects no stream, and the order would begin anew.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if it was; [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn refuse_soft_deleted(&self, order_id: OrderId) -> Result<(), LogError> {
        let metadata = self.stream_metadata(order_id).await?;
        if metadata.truncate_before == Some(SOFT_DELETED) { Err(LogError::Deleted) } else { Ok(()) }
    }

    /// Refuses an order whose stream has no events because they were deleted or truncated, or have
    /// expired: it is not one that never was.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if it was; [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn refuse_deleted(&self, order_id: OrderId) -> Result<(), LogError> {
        let metadata = self.stream_metadata(order_id).await?;
        if metadata.hides_events() { Err(LogError::Deleted) } else { Ok(()) }
    }

    async fn stream_metadata(&self, order_id: OrderId) -> Result<StreamMetadata, LogError> {
        let options =
            ReadStreamOptions::default().backwards().position(StreamPosition::End).max_count(1);
        let stream = format!("{METASTREAM_PREFIX}{}", order_id.stream());
        let newest = self.read_one(&stream, &options).await?;
        let metadata = newest.map(|it| StreamMetadata::of(&it.get_original_event().data));
        Ok(metadata.unwrap_or_default())
    }

    /// Reads one event; `None`: there is none, or no such stream.
    pub(crate) async fn read_one(
        &self,
        stream: &str,
        options: &ReadStreamOptions,
    ) -> Result<Option<ResolvedEvent>, LogError> {
        self.call(async |client| {
            let mut events = client.read_stream(stream, options).await?;
            next_event(&mut events).await
        })
        .await
    }
}

/// The next event of a read. A stream that does not exist is reported by the first read, and has none.
async fn next_event(events: &mut ReadStream) -> eventstore::Result<Option<ResolvedEvent>> {
    match events.next().await {
        Err(ClientError::ResourceNotFound) => Ok(None),
        next => next,
    }
}

impl HistoryReader {
    /// The next events; `None` after the last.
    ///
    /// # Errors
    /// [`LogError::Deleted`] if the stream was tombstoned; [`LogError::Unavailable`] if the store
    /// cannot be reached.
    pub async fn next(&mut self) -> Result<Option<Vec<LoggedEvent>>, LogError> {
        let Some(begin) = self.next else { return Ok(None) };
        let order_id = self.order_id;
        let portion =
            self.log.call(async |client| read_portion(&client, order_id, begin).await).await?;
        let last = portion.events.last().map(|it| it.revision);
        self.next = last.filter(|_| !portion.is_last).map(|last| last + 1);
        Ok((!portion.events.is_empty()).then_some(portion.events))
    }
}

async fn read_portion(
    client: &Client,
    order_id: OrderId,
    begin: u64,
) -> eventstore::Result<Portion> {
    let options = ReadStreamOptions::default()
        .forwards()
        .position(StreamPosition::Position(begin))
        .max_count(PORTION_EVENTS);
    let mut stream = client.read_stream(order_id.stream(), &options).await?;
    let mut events = Vec::new();
    let (mut n_events, mut n_bytes) = (0, 0);
    while let Some(event) = next_event(&mut stream).await? {
        n_events += 1;
        let Some(event) = LoggedEvent::of(&event) else { continue };
        n_bytes += event.data.len() + event.metadata.len();
        events.push(event);
        if n_bytes >= PORTION_BYTES {
            return Ok(Portion { events, is_last: false });
        }
    }
    Ok(Portion { events, is_last: n_events < PORTION_EVENTS })
}

/// What the store keeps about a stream, as far as it hides events.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct StreamMetadata {
    #[serde(rename = "$tb")]
    truncate_before: Option<i64>,
    #[serde(rename = "$maxAge")]
    max_age_seconds: Option<i64>,
}

impl StreamMetadata {
    /// Reads it. What is not metadata hides nothing.
    fn of(data: &[u8]) -> Self {
        serde_json::from_slice(data).unwrap_or_default()
    }

    /// Whether an event of a metadata stream deletes the stream that it is about.
    pub(crate) fn deletes(data: &[u8]) -> bool {
        Self::of(data).truncate_before == Some(SOFT_DELETED)
    }

    fn hides_events(&self) -> bool {
        self.truncate_before.is_some_and(|it| it > 0) || self.max_age_seconds.is_some()
    }
}

/// The order whose stream an event of the store's own deletes: the last event of a tombstoned
/// stream, or metadata that hides all events of a stream.
pub(crate) fn deleted_order(event: &RecordedEvent) -> Option<OrderId> {
    if event.event_type == TOMBSTONE_TYPE {
        return OrderId::from_stream(event.stream_id());
    }
    let order_id = OrderId::from_stream(event.stream_id().strip_prefix(METASTREAM_PREFIX)?)?;
    StreamMetadata::deletes(&event.data).then_some(order_id)
}
