//! The operators' pause of all workers, as this worker knows it.

use std::time::Duration;

use domain::operations::Control;
use event_log::EventLog;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two reads of the operators' last control.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// State that operators want. The worker takes no work until it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedState {
    Unknown,
    Work,
    /// No work, because of the pause with this revision.
    Pause(u64),
}

/// Whether this worker may take work.
pub(crate) struct PauseWatch {
    wanted: watch::Receiver<WantedState>,
    /// Revision of the pause that this worker obeys: it has released all work.
    obeyed: watch::Sender<Option<u64>>,
}

impl PauseWatch {
    /// Returns the watch, and the task that keeps it up to date while it is polled.
    pub(crate) fn start(log: EventLog) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, wanted) = watch::channel(WantedState::Unknown);
        (Self { wanted, obeyed: watch::Sender::default() }, keep_checking(log, sender))
    }

    /// Returns the revision of the pause that this worker obeys.
    pub(crate) fn obeyed_pause(&self) -> watch::Receiver<Option<u64>> {
        self.obeyed.subscribe()
    }

    /// Waits until work may be taken. The caller must hold no work: a pause counts as obeyed from
    /// then on.
    pub(crate) async fn wait_for_resume(&self) {
        let mut wanted = self.wanted.clone();
        loop {
            let now = *wanted.borrow_and_update();
            let pause = match now {
                WantedState::Pause(revision) => Some(revision),
                WantedState::Unknown | WantedState::Work => None,
            };
            // Cleared when the pause ends: the worker would be reported as paused while it works.
            self.obeyed.send_if_modified(|obeyed| std::mem::replace(obeyed, pause) != pause);
            if now == WantedState::Work {
                return;
            }
            if wanted.changed().await.is_err() {
                // The checking task has ended: the worker is stopping.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until work may no longer be taken.
    pub(crate) async fn wait_for_pause(&self) {
        let paused = |wanted: &WantedState| *wanted != WantedState::Work;
        if self.wanted.clone().wait_for(paused).await.is_err() {
            // The checking task has ended: the worker is stopping.
            std::future::pending::<()>().await;
        }
    }
}

async fn keep_checking(log: EventLog, wanted: watch::Sender<WantedState>) {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        match log.latest_control().await {
            Ok(latest) => {
                let now = match &latest {
                    Some(latest) if latest.control == Control::Pause => {
                        WantedState::Pause(latest.revision)
                    }
                    Some(_) | None => WantedState::Work,
                };
                let has_changed =
                    wanted.send_if_modified(|wanted| std::mem::replace(wanted, now) != now);
                if let (true, Some(latest)) = (has_changed, latest) {
                    let (actor, control) = (latest.actor, latest.control.entry_type());
                    tracing::info!(actor, control, "Workers paused or resumed by operator");
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                // The last known state applies: an outage must not resume paused workers.
                tracing::debug!(error, "Pause of the workers could not be checked");
            }
        }
    }
}
