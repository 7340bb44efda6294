//! Scavenges: what no reader can reach is removed from the log while the node serves.
//!
//! One runs at a time. It goes from chunk to chunk and remembers its place, so that a node that was
//! stopped or killed goes on at its next start. It tells how it goes in the stream
//! `$scavenges-<id>`, with the event types of EventStoreDB.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::log::{Append, Compacted, Expected, Log, LogError, NewEvent, Write};

/// Bytes that a scavenge reads between two looks at its pace.
const PACED_BYTES: u64 = 256 * 1_024;

/// Event types of EventStoreDB's scavenge streams.
const STARTED: &str = "$scavengeStarted";
const CHUNK_COMPLETED: &str = "$scavengeChunksCompleted";
const COMPLETED: &str = "$scavengeCompleted";

/// The scavenge that is under way, as it is kept for the next start.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ScavengePlace {
    id: Uuid,
    /// Start of the next chunk to look at.
    next: u64,
    /// Chunks that begin here or later are not looked at.
    until: u64,
    n_events: u64,
    n_bytes: u64,
}

/// What became of the wish to start one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    Now(Uuid),
    /// Another one is under way.
    Before(Uuid),
}

#[derive(Debug)]
struct Running {
    id: Uuid,
    stop: CancellationToken,
}

/// Runs scavenges. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scavenges {
    log: Log,
    tasks: TaskTracker,
    stop: CancellationToken,
    bytes_per_second: u64,
    running: Arc<Mutex<Option<Running>>>,
}

impl Scavenges {
    /// Prepares to run scavenges, and goes on with one that the last run did not finish.
    pub(crate) async fn start_with(
        log: Log,
        tasks: TaskTracker,
        stop: CancellationToken,
        bytes_per_second: u64,
    ) -> Result<Self, LogError> {
        let scavenges = Self { log, tasks, stop, bytes_per_second, running: Arc::default() };
        if let Some(place) = scavenges.log.scavenge_place().await? {
            tracing::info!(id = %place.id, "Scavenge goes on where it was interrupted");
            scavenges.spawn(place);
        }
        Ok(scavenges)
    }

    /// Starts a scavenge, unless one is under way.
    pub(crate) async fn start(&self) -> Result<Started, LogError> {
        let id = self.log.clock().new_id();
        {
            let mut running = self.running();
            if let Some(running) = running.as_ref() {
                return Ok(Started::Before(running.id));
            }
            *running = Some(Running { id, stop: self.stop.child_token() });
        }
        match self.plan(id).await {
            Ok(place) => {
                self.spawn(place);
                Ok(Started::Now(id))
            }
            Err(error) => {
                *self.running() = None;
                Err(error)
            }
        }
    }

    /// Ends the scavenge with this id. What it removed stays removed. Returns whether it was under way.
    pub(crate) fn stop(&self, id: &str) -> bool {
        let running = self.running();
        let found = running.as_ref().filter(|running| running.id.to_string() == id);
        found.map(|running| running.stop.cancel()).is_some()
    }

    /// Has all that is there now looked at.
    async fn plan(&self, id: Uuid) -> Result<ScavengePlace, LogError> {
        let until = self.log.begin_chunk().await?;
        // The newest event of the log is never removed: positions go on from it.
        self.record(id, STARTED, json!({"scavengeId": id})).await?;
        let place = ScavengePlace { id, next: 0, until, n_events: 0, n_bytes: 0 };
        self.log.keep_scavenge_place(Some(place)).await?;
        Ok(place)
    }

    fn spawn(&self, place: ScavengePlace) {
        let stop = {
            let mut running = self.running();
            let stop = self.stop.child_token();
            running.get_or_insert(Running { id: place.id, stop }).stop.clone()
        };
        let scavenges = self.clone();
        self.tasks.spawn(async move {
            let id = place.id;
            match scavenges.run(place, &stop).await {
                Ok(place) => tracing::info!(
                    %id,
                    events = place.n_events,
                    bytes = place.n_bytes,
                    "Scavenge completed"
                ),
                // The node stops: the next start goes on.
                Err(_) if scavenges.stop.is_cancelled() => {
                    tracing::info!(%id, "Scavenge interrupted: it goes on at the next start");
                }
                Err(error) => {
                    let reason = error.to_string();
                    tracing::warn!(
                        %id,
                        error = &error as &dyn std::error::Error,
                        "Scavenge ended before it was complete"
                    );
                    scavenges.give_up(id, reason).await;
                }
            }
            *scavenges.running() = None;
        });
    }

    async fn run(
        &self,
        mut place: ScavengePlace,
        stop: &CancellationToken,
    ) -> Result<ScavengePlace, LogError> {
        for start in self.log.chunk_starts(place.next..place.until) {
            let limit = Pace::new(self.bytes_per_second, stop.clone());
            let Compacted { n_events, n_bytes } = self.log.compact(start, limit).await?;
            place.next = start + 1;
            place.n_events += n_events;
            place.n_bytes += n_bytes;
            let progress = json!({
                "scavengeId": place.id,
                "chunkStart": start,
                "wasScavenged": n_bytes > 0,
                "spaceSaved": n_bytes,
            });
            self.record(place.id, CHUNK_COMPLETED, progress).await?;
            self.log.keep_scavenge_place(Some(place)).await?;
        }
        if place.n_events > 0 {
            self.log.renew_index().await?;
        }
        let result = json!({
            "scavengeId": place.id,
            "result": "Success",
            "spaceSaved": place.n_bytes,
            "eventsRemoved": place.n_events,
        });
        self.record(place.id, COMPLETED, result).await?;
        self.log.keep_scavenge_place(None).await?;
        Ok(place)
    }

    /// Leaves no trace for the next start, as far as the store still takes writes.
    async fn give_up(&self, id: Uuid, error: String) {
        let result = if self.was_stopped() { "Stopped" } else { "Errored" };
        let ended = json!({"scavengeId": id, "result": result, "error": error});
        // Chunks before this one may have been compacted: the index must not name what is gone.
        let renewed = self.log.renew_index().await;
        let recorded = renewed.and(self.record(id, COMPLETED, ended).await);
        let forgotten = match recorded {
            Ok(()) => self.log.keep_scavenge_place(None).await,
            failed => failed,
        };
        if let Err(error) = forgotten {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%id, error, "End of the scavenge cannot be recorded: the next start goes on with it");
        }
    }

    fn was_stopped(&self) -> bool {
        self.running().as_ref().is_some_and(|running| running.stop.is_cancelled())
    }

    async fn record(&self, id: Uuid, event_type: &str, data: Value) -> Result<(), LogError> {
        let event = NewEvent {
            id: self.log.clock().new_id(),
            event_type: event_type.to_owned(),
            is_json: true,
            metadata: Bytes::new(),
            data: data.to_string().into(),
        };
        let append = Append {
            stream: format!("$scavenges-{id}"),
            expected: Expected::Any,
            events: vec![event],
        };
        self.log.write(Write::Append(append)).await.map(drop)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds a scavenge to its rate, and ends it when it is stopped.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    stop: CancellationToken,
    n_bytes: u64,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64, stop: CancellationToken) -> Self {
        Self { bytes_per_second, stop, n_bytes: 0 }
    }

    /// Counts bytes that were read. Blocks the thread for as long as they may take.
    pub(crate) fn take(&mut self, n_bytes: u64) -> Result<(), LogError> {
        self.n_bytes += n_bytes;
        if self.n_bytes >= PACED_BYTES {
            let millis = self.n_bytes.saturating_mul(1_000) / self.bytes_per_second.max(1);
            std::thread::sleep(Duration::from_millis(millis));
            self.n_bytes = 0;
            if self.stop.is_cancelled() {
                return Err(LogError::Closed);
            }
        }
        Ok(())
    }
}
