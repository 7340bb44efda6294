//! Parked messages of a group: links in a stream of their own.

use eventstore::{ReadStreamOptions, ResolvedEvent, StreamPosition};
use jiff::Timestamp;
use serde::Deserialize;

use super::event_log::EventLog;
use crate::store::error::LogError;
use crate::store::logged_event::{LoggedEvent, created_at};

/// A parked message.
#[derive(Debug, Clone)]
pub struct ParkedMessage {
    /// The message's number in the parked stream.
    pub number: u64,
    /// The parked event; `None` if it is not in an order's stream, or no longer exists.
    pub event: Option<LoggedEvent>,
    /// Whether the event no longer exists.
    pub is_gone: bool,
    /// Why the message was parked.
    pub reason: String,
    /// When the store parked the message, in whole seconds.
    pub parked_at: Option<Timestamp>,
}

/// The part of the link's metadata that this program reads.
#[derive(Default, Deserialize)]
struct ParkedMetadata {
    #[serde(default)]
    reason: String,
}

impl EventLog {
    /// Reads a group's parked messages from a number on, or from the first, up to `limit`.
    pub async fn read_parked(
        &self,
        group: &str,
        from: Option<u64>,
        limit: usize,
    ) -> Result<Vec<ParkedMessage>, LogError> {
        let stream = format!("$persistentsubscription-$all::{group}-parked");
        let from = from.map_or(StreamPosition::Start, StreamPosition::Position);
        let options = ReadStreamOptions::default()
            .forwards()
            .position(from)
            .max_count(limit)
            .resolve_link_tos();
        let events = self.store.read_stream(&stream, &options).await?;
        Ok(events.iter().filter_map(ParkedMessage::from_link).collect())
    }
}

impl ParkedMessage {
    fn from_link(resolved: &ResolvedEvent) -> Option<Self> {
        let link = resolved.link.as_ref()?;
        let metadata: ParkedMetadata =
            serde_json::from_slice(&link.custom_metadata).unwrap_or_default();
        Some(Self {
            number: link.revision,
            event: resolved.event.as_ref().and_then(LoggedEvent::from_recorded),
            is_gone: resolved.event.is_none(),
            reason: metadata.reason,
            parked_at: created_at(link),
        })
    }
}
