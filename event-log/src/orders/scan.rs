//! A scan of all orders' events, from the first to the newest.

use eventstore::ReadStream;

use super::event_log::EventLog;
use crate::store::client::Position;
use crate::store::error::LogError;
use crate::store::logged_event::LoggedEvent;
use crate::store::read::read_all_after;

/// A scan of the store as it was at the start. Events that are appended meanwhile are not included.
pub struct Scan {
    events: ReadStream,
    /// The newest event when the scan began; `None` if there was none.
    head: Option<Position>,
}

impl EventLog {
    /// Begins a scan of all orders' events.
    pub async fn scan(&self) -> Result<Scan, LogError> {
        // The head first: otherwise events that are appended in between would be included.
        let head = self.store.head().await?;
        let options = read_all_after(None);
        let events = self.store.call(async |client| client.read_all(&options).await).await?;
        Ok(Scan { events, head })
    }
}

impl Scan {
    /// Returns the next event of an order; `None` at the end.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store became unreachable: the scan must be started again.
    pub async fn next(&mut self) -> Result<Option<LoggedEvent>, LogError> {
        while let Some(event) = self.events.next().await.map_err(LogError::from_client)? {
            let event = event.get_original_event();
            // Appended after the scan has begun.
            if self.head.is_none_or(|head| Position::from(event.position) > head) {
                break;
            }
            if let Some(event) = LoggedEvent::from_recorded(event) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}
