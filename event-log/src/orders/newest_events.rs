//! Events of all orders or of one order, read backwards in portions.

use domain::ids::OrderId;
use eventstore::{ReadAllOptions, ReadStreamOptions, ResolvedEvent, StreamPosition};

use super::event_log::EventLog;
use crate::store::client::Position;
use crate::store::error::LogError;
use crate::store::logged_event::LoggedEvent;
use crate::store::read::ReadPortion;

/// Size of data and metadata with which a portion ends, in bytes.
const PORTION_BYTES: usize = 1024 * 1024;

/// An event's place in the log and in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPlace {
    pub position: Position,
    pub revision: u64,
}

/// Events, the newest first.
#[derive(Debug, Default)]
pub struct EventsPortion {
    /// Events of orders. Events of other streams are left out.
    pub events: Vec<LoggedEvent>,
    /// Number of events that were read, including those of other streams.
    pub n_read: usize,
    /// Where the next portion continues; `None` if there are no older events.
    pub next: Option<EventPlace>,
}

impl EventLog {
    /// Reads the newest `max_events` events before a place; `None`: the newest of all.
    ///
    /// The client offers no filter for this read, so the events of other streams are read, too.
    pub async fn read_events_before(
        &self,
        before: Option<EventPlace>,
        max_events: usize,
    ) -> Result<EventsPortion, LogError> {
        let from = before
            .map_or(StreamPosition::End, |before| StreamPosition::Position(before.position.into()));
        let options = ReadAllOptions::default().backwards().position(from).max_count(max_events);
        let portion = self.store.read_all_portion(&options, PORTION_BYTES).await?;
        // A server may include the event at the position where the read begins.
        Ok(to_events_portion(&portion, max_events, |place| {
            before.is_none_or(|before| place.position < before.position)
        }))
    }

    /// Reads the newest `max_events` events of one order before a place; `None`: the newest of all. An
    /// order that was deleted has none.
    pub async fn read_order_events_before(
        &self,
        order_id: OrderId,
        before: Option<EventPlace>,
        max_events: usize,
    ) -> Result<EventsPortion, LogError> {
        let from = match before.map(|before| before.revision.checked_sub(1)) {
            None => StreamPosition::End,
            Some(Some(revision)) => StreamPosition::Position(revision),
            Some(None) => return Ok(EventsPortion::default()),
        };
        let options = ReadStreamOptions::default().backwards().position(from).max_count(max_events);
        match self.store.read_portion(&order_id.stream_name(), &options, PORTION_BYTES).await {
            Ok(portion) => Ok(to_events_portion(&portion, max_events, |_| true)),
            Err(LogError::Deleted) => Ok(EventsPortion::default()),
            Err(error) => Err(error),
        }
    }
}

fn to_events_portion(
    portion: &ReadPortion,
    max_events: usize,
    is_wanted: impl Fn(EventPlace) -> bool,
) -> EventsPortion {
    let n_read = portion.events.len();
    // A full portion may be the last one: the next read returns nothing then.
    let is_last = !portion.is_cut && n_read < max_events;
    let wanted = portion.events.iter().filter(|event| is_wanted(place_of(event)));
    EventsPortion {
        events: wanted.filter_map(LoggedEvent::from_resolved).collect(),
        n_read,
        next: portion.events.last().filter(|_| !is_last).map(place_of),
    }
}

fn place_of(event: &ResolvedEvent) -> EventPlace {
    let event = event.get_original_event();
    EventPlace { position: event.position.into(), revision: event.revision }
}

impl LoggedEvent {
    /// Returns the event's place in the log and in its stream.
    pub fn place(&self) -> EventPlace {
        EventPlace { position: self.position, revision: self.revision }
    }
}
