//! All orders' events, read once from the first to the newest.

use eventstore::{ReadAllOptions, ReadStream, StreamPosition};

use crate::client::{EventLog, Position};
use crate::error::LogError;
use crate::stream::LoggedEvent;

/// A walk through the store as it was when the walk began; what is appended meanwhile is not part
/// of it.
pub struct Scan {
    events: ReadStream,
    /// The newest event when the walk began; `None` if there was none.
    head: Option<Position>,
}

impl EventLog {
    /// Begins a walk through all orders' events.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn scan(&self) -> Result<Scan, LogError> {
        let head = self.head().await?;
        let options = ReadAllOptions::default()
            .forwards()
            .position(StreamPosition::Start)
            .max_count(usize::MAX);
        let events = self.call(async |client| client.read_all(&options).await).await?;
        Ok(Scan { events, head })
    }
}

impl Scan {
    /// The next event of an order; `None` at the end.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store went away: the walk has to begin anew.
    pub async fn next(&mut self) -> Result<Option<LoggedEvent>, LogError> {
        while let Some(event) = self.events.next().await.map_err(LogError::from_client)? {
            let event = event.get_original_event();
            if self.head.is_none_or(|head| Position::from(event.position) > head) {
                break;
            }
            if let Some(event) = LoggedEvent::new(event) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}
