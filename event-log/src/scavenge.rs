//! Scavenges of the event store: started here, told of by the store in a stream of each.

use eventstore::operations::{Client as Operations, OperationalOptions, ScavengeStatus};
use eventstore::{ReadStreamOptions, StreamPosition};
use serde::Deserialize;

use crate::client::EventLog;
use crate::error::LogError;

/// Event type of the last event of a scavenge's stream.
const COMPLETED: &str = "$scavengeCompleted";

/// A scavenge that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scavenge {
    /// The store's id of it.
    pub id: String,
    /// Whether it was under way before.
    pub was_running: bool,
    next_revision: u64,
}

/// What a store told of a scavenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScavengeReport {
    /// Another part of the log was looked at. Bytes that it is smaller now.
    Part { bytes_saved: u64 },
    /// The scavenge has ended.
    Ended {
        /// `Success`, or why it was not completed, in the store's words.
        result: String,
        bytes_saved: u64,
    },
}

/// The members of a scavenge event that EventStoreDB and the embedded node both write.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ScavengeEvent {
    space_saved: i64,
    result: Option<String>,
    error: Option<String>,
}

impl EventLog {
    /// Has the store remove from its log what no reader can reach. One that is under way goes on.
    ///
    /// # Errors
    /// [`LogError::Refused`] if the user of the connection may not do that.
    pub async fn start_scavenge(&self) -> Result<Scavenge, LogError> {
        let operations = self.operations()?;
        let started = operations.start_scavenge(1, 0, &OperationalOptions::default()).await;
        let started = started.map_err(LogError::from_client)?;
        let was_running = started.status() == ScavengeStatus::InProgress;
        Ok(Scavenge { id: started.id().to_owned(), was_running, next_revision: 0 })
    }

    /// Ends the scavenge of this id. What it removed stays removed.
    ///
    /// # Errors
    /// [`LogError::Refused`] if no scavenge of that id is under way.
    pub async fn stop_scavenge(&self, id: &str) -> Result<(), LogError> {
        let operations = self.operations()?;
        let stopped = operations.stop_scavenge(id, &OperationalOptions::default()).await;
        stopped.map(drop).map_err(LogError::from_client)
    }

    /// Returns what the store has told of the scavenge since the last call.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn scavenge_reports(
        &self,
        scavenge: &mut Scavenge,
    ) -> Result<Vec<ScavengeReport>, LogError> {
        let stream = format!("$scavenges-{}", scavenge.id);
        let from = scavenge.next_revision;
        let read = |client: eventstore::Client| {
            let stream = stream.clone();
            async move {
                let options = ReadStreamOptions::default()
                    .position(StreamPosition::Position(from))
                    .max_count(100);
                let mut events = client.read_stream(stream, &options).await?;
                let mut found = Vec::new();
                loop {
                    match events.next().await {
                        Ok(Some(event)) => found.push(event),
                        Ok(None) | Err(eventstore::Error::ResourceNotFound) => return Ok(found),
                        Err(error) => return Err(error),
                    }
                }
            }
        };
        let mut reports = Vec::new();
        for event in self.call(read).await? {
            let event = event.get_original_event();
            scavenge.next_revision = event.revision + 1;
            let told: ScavengeEvent = serde_json::from_slice(&event.data).unwrap_or_default();
            let bytes_saved = u64::try_from(told.space_saved).unwrap_or(0);
            if event.event_type == COMPLETED {
                let result = told.error.filter(|error| !error.is_empty()).or(told.result);
                let result = result.unwrap_or_else(|| "Success".to_owned());
                reports.push(ScavengeReport::Ended { result, bytes_saved });
            } else {
                reports.push(ScavengeReport::Part { bytes_saved });
            }
        }
        Ok(reports)
    }

    fn operations(&self) -> Result<Operations, LogError> {
        let address = || LogError::Address { url: self.address().to_owned() };
        Operations::new(self.settings()).map_err(|_| address())
    }
}
