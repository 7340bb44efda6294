//! Scavenges of the event store. The store reports each in a stream of its own.

use eventstore::operations::{Client as Operations, OperationalOptions, ScavengeStatus};
use eventstore::{ReadStreamOptions, StreamPosition};
use serde::Deserialize;

use super::client::StoreClient;
use super::error::LogError;

/// Event type of the last event of a scavenge's stream.
const COMPLETED: &str = "$scavengeCompleted";

/// A scavenge in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scavenge {
    /// The store's id of the scavenge.
    pub id: String,
    /// Whether it was in progress before this process asked for it.
    pub was_running: bool,
    next_revision: u64,
}

/// A store's report about a scavenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScavengeReport {
    /// Another part of the log was scavenged, and is smaller by these bytes.
    Part { bytes_saved: u64 },
    /// The scavenge has ended.
    Ended {
        /// `Success`, or the store's message why the scavenge was not completed.
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

impl StoreClient {
    /// Starts a scavenge: the store removes events that no reader can reach. A scavenge in progress
    /// continues.
    ///
    /// # Errors
    /// [`LogError::Refused`] if the connection's user lacks the right.
    pub async fn start_scavenge(&self) -> Result<Scavenge, LogError> {
        let operations = self.operations_client()?;
        // One thread, from the first chunk on.
        let started = operations.start_scavenge(1, 0, &OperationalOptions::default()).await;
        let started = started.map_err(LogError::from_client)?;
        let was_running = started.status() == ScavengeStatus::InProgress;
        Ok(Scavenge { id: started.id().to_owned(), was_running, next_revision: 0 })
    }

    /// Stops the scavenge with this id. Events that it has removed stay removed.
    ///
    /// # Errors
    /// [`LogError::Refused`] if no scavenge with this id is in progress.
    pub async fn stop_scavenge(&self, id: &str) -> Result<(), LogError> {
        let operations = self.operations_client()?;
        let stopped = operations.stop_scavenge(id, &OperationalOptions::default()).await;
        stopped.map(drop).map_err(LogError::from_client)
    }

    /// Returns the store's reports about the scavenge since the last call.
    pub async fn scavenge_reports(
        &self,
        scavenge: &mut Scavenge,
    ) -> Result<Vec<ScavengeReport>, LogError> {
        let stream = format!("$scavenges-{}", scavenge.id);
        let options = ReadStreamOptions::default()
            .position(StreamPosition::Position(scavenge.next_revision))
            .max_count(100);
        let mut reports = Vec::new();
        for event in self.read_stream(&stream, &options).await? {
            let event = event.get_original_event();
            scavenge.next_revision = event.revision + 1;
            let content: ScavengeEvent = serde_json::from_slice(&event.data).unwrap_or_default();
            let bytes_saved = u64::try_from(content.space_saved).unwrap_or(0);
            if event.event_type == COMPLETED {
                let result = content.error.filter(|error| !error.is_empty()).or(content.result);
                let result = result.unwrap_or_else(|| "Success".to_owned());
                reports.push(ScavengeReport::Ended { result, bytes_saved });
            } else {
                reports.push(ScavengeReport::Part { bytes_saved });
            }
        }
        Ok(reports)
    }

    fn operations_client(&self) -> Result<Operations, LogError> {
        Operations::new(self.settings())
            .map_err(|_| LogError::Address { url: self.address().to_owned() })
    }
}
