//! The messages that a group has set aside: links in a stream of their own.

use eventstore::{ReadStreamOptions, ResolvedEvent, StreamPosition};
use serde::Deserialize;

use crate::client::EventLog;
use crate::error::LogError;
use crate::stream::LoggedEvent;

/// A parked message.
#[derive(Debug, Clone)]
pub struct Parked {
    /// Its number in the parked stream.
    pub number: u64,
    /// The event that was parked; `None` if it is in no order's stream, or gone.
    pub event: Option<LoggedEvent>,
    /// Whether the event is gone for good.
    pub is_gone: bool,
    /// Why, as the store keeps it.
    pub reason: String,
}

/// What the store writes beside the link, as far as we read it.
#[derive(Default, Deserialize)]
struct ParkedMetadata {
    #[serde(default)]
    reason: String,
}

impl EventLog {
    /// A group's parked messages from a number on, or from the first that there is, up to `limit`.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn parked(
        &self,
        group: &str,
        from: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Parked>, LogError> {
        let stream = format!("$persistentsubscription-$all::{group}-parked");
        let from = from.map_or(StreamPosition::Start, StreamPosition::Position);
        let options = ReadStreamOptions::default()
            .forwards()
            .position(from)
            .max_count(limit)
            .resolve_link_tos();
        self.call(async |client| {
            let mut events = client.read_stream(stream.as_str(), &options).await?;
            let mut parked = Vec::new();
            loop {
                match events.next().await {
                    Ok(Some(event)) => parked.extend(Parked::of(&event)),
                    // A stream that does not exist is reported by the first read.
                    Ok(None) | Err(eventstore::Error::ResourceNotFound) => return Ok(parked),
                    Err(error) => return Err(error),
                }
            }
        })
        .await
    }
}

impl Parked {
    fn of(resolved: &ResolvedEvent) -> Option<Self> {
        let link = resolved.link.as_ref()?;
        let metadata: ParkedMetadata =
            serde_json::from_slice(&link.custom_metadata).unwrap_or_default();
        Some(Self {
            number: link.revision,
            event: resolved.event.as_ref().and_then(LoggedEvent::new),
            is_gone: resolved.event.is_none(),
            reason: metadata.reason,
        })
    }
}
