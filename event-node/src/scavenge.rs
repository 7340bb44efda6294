//! Scavenges: removal of unreachable events from the log while the node is serving.
//!
//! One scavenge runs at a time. It compacts chunk after chunk and stores a checkpoint after each,
//! so that a stopped or killed node resumes it at the next start. Progress is recorded in the
//! stream `$scavenges-<id>`, with the event types of EventStoreDB.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use service_kit::mutex::lock;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::log::{CompactionSummary, Log, LogError, ScavengeCheckpoint};

/// Bytes that a scavenge reads between two pauses.
const THROTTLE_BYTES: u64 = 256 * 1_024;

/// Event types of EventStoreDB's scavenge streams.
const STARTED: &str = "$scavengeStarted";
const CHUNK_COMPLETED: &str = "$scavengeChunksCompleted";
const COMPLETED: &str = "$scavengeCompleted";

/// Result of a request to start a scavenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScavengeStart {
    Started(Uuid),
    /// Another scavenge is running.
    AlreadyRunning(Uuid),
}

#[derive(Debug)]
struct Running {
    id: Uuid,
    stop: CancellationToken,
}

/// Runs scavenges. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scavenger {
    log: Log,
    tasks: TaskTracker,
    stop: CancellationToken,
    bytes_per_second: u64,
    running: Arc<Mutex<Option<Running>>>,
}

impl Scavenger {
    /// Creates the scavenger and resumes a scavenge that the last run did not finish.
    pub(crate) async fn new_and_resume(
        log: Log,
        tasks: TaskTracker,
        stop: CancellationToken,
        bytes_per_second: u64,
    ) -> Result<Self, LogError> {
        let scavenger = Self { log, tasks, stop, bytes_per_second, running: Arc::default() };
        if let Some(checkpoint) = scavenger.log.read_scavenge_checkpoint().await? {
            tracing::info!(id = %checkpoint.id, "Scavenge resumed");
            scavenger.spawn_scavenge(checkpoint, true);
        }
        Ok(scavenger)
    }

    /// Starts a scavenge unless one is running.
    pub(crate) async fn start_scavenge(&self) -> Result<ScavengeStart, LogError> {
        let id = self.log.clock().new_id();
        {
            let mut running = lock(&self.running);
            if let Some(running) = running.as_ref() {
                return Ok(ScavengeStart::AlreadyRunning(running.id));
            }
            // Reserve the slot before the first `await`. Two concurrent requests must not both
            // start.
            *running = Some(Running { id, stop: self.stop.child_token() });
        }
        match self.begin_scavenge(id).await {
            Ok(checkpoint) => {
                self.spawn_scavenge(checkpoint, false);
                Ok(ScavengeStart::Started(id))
            }
            Err(error) => {
                *lock(&self.running) = None;
                Err(error)
            }
        }
    }

    /// Stops the scavenge with this id; removed events stay removed. Returns whether it was
    /// running.
    pub(crate) fn stop_scavenge(&self, id: &str) -> bool {
        let running = lock(&self.running);
        let found = running.as_ref().filter(|running| running.id.to_string() == id);
        found.map(|running| running.stop.cancel()).is_some()
    }

    /// Prepares a scavenge of everything stored so far.
    async fn begin_scavenge(&self, id: Uuid) -> Result<ScavengeCheckpoint, LogError> {
        let until = self.log.begin_chunk().await?;
        // This event becomes the newest one of the log. A scavenge never removes that, because the
        // next position follows from it.
        self.append_event(id, STARTED, json!({"scavengeId": id})).await?;
        let checkpoint = ScavengeCheckpoint { id, next: 0, until, n_events: 0, n_bytes: 0 };
        self.log.save_scavenge_checkpoint(Some(checkpoint)).await?;
        Ok(checkpoint)
    }

    fn spawn_scavenge(&self, checkpoint: ScavengeCheckpoint, is_resumed: bool) {
        let stop = {
            let mut running = lock(&self.running);
            // A new scavenge has reserved its slot already; a resumed one has not.
            let stop = self.stop.child_token();
            running.get_or_insert(Running { id: checkpoint.id, stop }).stop.clone()
        };
        let scavenger = self.clone();
        self.tasks.spawn(async move {
            let id = checkpoint.id;
            match scavenger.scavenge_chunks(checkpoint, is_resumed, &stop).await {
                Ok(checkpoint) => tracing::info!(
                    %id,
                    events = checkpoint.n_events,
                    bytes = checkpoint.n_bytes,
                    "Scavenge completed"
                ),
                // The node is stopping; the next start resumes from the stored checkpoint.
                Err(_) if scavenger.stop.is_cancelled() => {
                    tracing::info!(%id, "Scavenge interrupted by shutdown: resuming at the next start");
                }
                Err(error) => {
                    let reason = error.to_string();
                    tracing::warn!(
                        %id,
                        error = &error as &dyn std::error::Error,
                        "Scavenge failed or was stopped"
                    );
                    scavenger.give_up(id, reason).await;
                }
            }
            // Last of all: the checkpoint of the next scavenge must not be removed as that of this
            // one.
            *lock(&scavenger.running) = None;
        });
    }

    async fn scavenge_chunks(
        &self,
        mut checkpoint: ScavengeCheckpoint,
        is_resumed: bool,
        stop: &CancellationToken,
    ) -> Result<ScavengeCheckpoint, LogError> {
        for start in self.log.chunk_starts(checkpoint.next..checkpoint.until) {
            let mut limit = Throttle::new(self.bytes_per_second, stop.clone());
            let throttle = move |n_bytes| limit.count_read(n_bytes);
            let CompactionSummary { n_events, n_bytes } =
                self.log.compact_chunk(start, throttle).await?;
            // Any offset between this chunk's start and the next one's: `chunk_starts` lists starts
            // in the range.
            checkpoint.next = start + 1;
            checkpoint.n_events += n_events;
            checkpoint.n_bytes += n_bytes;
            let progress = json!({
                "scavengeId": checkpoint.id,
                "chunkStart": start,
                "wasScavenged": n_bytes > 0,
                "spaceSaved": n_bytes,
            });
            // Store the checkpoint after the compaction. If the node is killed in between, the
            // chunk is scanned again, and nothing is removed twice.
            self.append_event(checkpoint.id, CHUNK_COMPLETED, progress).await?;
            self.log.save_scavenge_checkpoint(Some(checkpoint)).await?;
        }
        // The index still lists the removed events. A killed run may have removed events that its
        // checkpoint does not count: it dies between a compaction and the checkpoint after it.
        if checkpoint.n_events > 0 || is_resumed {
            self.log.rebuild_index().await?;
        }
        let result = json!({
            "scavengeId": checkpoint.id,
            "result": "Success",
            "spaceSaved": checkpoint.n_bytes,
            "eventsRemoved": checkpoint.n_events,
        });
        self.append_event(checkpoint.id, COMPLETED, result).await?;
        self.log.save_scavenge_checkpoint(None).await?;
        Ok(checkpoint)
    }

    /// Records the failure and removes the checkpoint, as far as the store still accepts writes.
    async fn give_up(&self, id: Uuid, error: String) {
        let result = if self.was_stopped() { "Stopped" } else { "Errored" };
        let ended = json!({"scavengeId": id, "result": result, "error": error});
        // Earlier chunks may have been compacted. The index must not keep listing the removed
        // entries.
        let renewed = self.log.rebuild_index().await;
        let recorded = renewed.and(self.append_event(id, COMPLETED, ended).await);
        let forgotten = match recorded {
            Ok(()) => self.log.save_scavenge_checkpoint(None).await,
            failed => failed,
        };
        if let Err(error) = forgotten {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%id, error, "End of the scavenge cannot be recorded: resuming it at the next start");
        }
    }

    fn was_stopped(&self) -> bool {
        lock(&self.running).as_ref().is_some_and(|running| running.stop.is_cancelled())
    }

    async fn append_event(&self, id: Uuid, event_type: &str, data: Value) -> Result<(), LogError> {
        let stream = format!("$scavenges-{id}");
        self.log.append_json_event(stream, event_type, data.to_string()).await.map(drop)
    }
}

/// Limits the read rate of a scavenge and stops it when cancelled.
#[derive(Debug)]
struct Throttle {
    bytes_per_second: u64,
    stop: CancellationToken,
    n_bytes: u64,
}

impl Throttle {
    fn new(bytes_per_second: u64, stop: CancellationToken) -> Self {
        Self { bytes_per_second, stop, n_bytes: 0 }
    }

    /// Counts bytes read and blocks the thread to keep the rate.
    fn count_read(&mut self, n_bytes: u64) -> Result<(), LogError> {
        self.n_bytes += n_bytes;
        if self.n_bytes >= THROTTLE_BYTES {
            let millis = self.n_bytes.saturating_mul(1_000) / self.bytes_per_second.max(1);
            // Compaction runs on a blocking thread, so sleeping does not stall the runtime.
            std::thread::sleep(Duration::from_millis(millis));
            self.n_bytes = 0;
            if self.stop.is_cancelled() {
                return Err(LogError::Closed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use service_kit::clock::Clock;

    use super::*;
    use crate::log::{Append, Deletion, ExpectedRevision, NewEvent, WriteRequest, verify_store};

    fn open_log(folder: &Path) -> Log {
        #[expect(clippy::disallowed_methods, reason = "tests create their own clock")]
        let clock = Clock::new(jiff::Timestamp::now, Uuid::new_v4);
        Log::open(folder, clock, false).unwrap()
    }

    async fn write(log: &Log, write: WriteRequest) {
        log.write(write).await.unwrap();
    }

    #[tokio::test]
    async fn resumed_scavenge_drops_rows_of_uncounted_events() {
        let folder = tempfile::tempdir().unwrap();
        let log = open_log(folder.path());
        let event = NewEvent::new(log.clock().new_id(), "happened", false, vec![7; 100]);
        let (stream, expected) = ("gone".to_owned(), ExpectedRevision::Any);
        let append = Append { stream: stream.clone(), expected, events: vec![event] };
        write(&log, WriteRequest::Append(append)).await;
        write(&log, WriteRequest::Tombstone(Deletion { stream, expected })).await;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let scavenger =
            Scavenger::new_and_resume(log.clone(), tasks, stop.clone(), u64::MAX).await.unwrap();
        let checkpoint = scavenger.begin_scavenge(log.clock().new_id()).await.unwrap();
        // The node is killed after the compaction and before the next checkpoint.
        for start in log.chunk_starts(0..checkpoint.until) {
            let removed = log.compact_chunk(start, |_| Ok(())).await.unwrap();
            assert_eq!(removed.n_events, 1);
        }
        log.close().await;
        drop((scavenger, log));

        let log = open_log(folder.path());
        let tasks = TaskTracker::new();
        Scavenger::new_and_resume(log.clone(), tasks.clone(), stop, u64::MAX).await.unwrap();
        tasks.close();
        tasks.wait().await;
        assert!(log.read_scavenge_checkpoint().await.unwrap().is_none());
        log.close().await;
        verify_store(folder.path()).unwrap();
    }
}
