//! What operators told all workers, as this worker knows it.

use std::time::Duration;

use domain::operations::Control;
use event_log::EventLog;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at what operators told the workers.
const LOOK: Duration = Duration::from_secs(1);

/// What operators want of this worker. Until that is known, it takes no work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Unknown,
    Work,
    /// No work, because of the pause with this revision.
    Pause(u64),
}

/// Whether this worker is to take work.
pub(crate) struct Pause {
    wanted: watch::Receiver<Wanted>,
    /// The pause that this worker obeys: it has let go of all work.
    obeyed: watch::Sender<Option<u64>>,
}

impl Pause {
    /// What is known, and the task that finds it out for as long as it is polled.
    pub(crate) fn watch(log: EventLog) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, wanted) = watch::channel(Wanted::Unknown);
        (Self { wanted, obeyed: watch::Sender::default() }, keep_looking(log, sender))
    }

    /// The pause that this worker obeys.
    pub(crate) fn obeyed(&self) -> watch::Receiver<Option<u64>> {
        self.obeyed.subscribe()
    }

    /// Waits until work may be taken. To be called without any work in hand: a pause counts as obeyed
    /// from then on.
    pub(crate) async fn lifted(&self) {
        let mut wanted = self.wanted.clone();
        loop {
            let now = *wanted.borrow_and_update();
            let pause = match now {
                Wanted::Pause(revision) => Some(revision),
                Wanted::Unknown | Wanted::Work => None,
            };
            self.obeyed.send_if_modified(|it| std::mem::replace(it, pause) != pause);
            if now == Wanted::Work {
                return;
            }
            if wanted.changed().await.is_err() {
                // Nobody watches any more: what was known stays.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until work may not be taken any more.
    pub(crate) async fn begun(&self) {
        if self.wanted.clone().wait_for(|it| *it != Wanted::Work).await.is_err() {
            // The task is gone, and with it the worker.
            std::future::pending::<()>().await;
        }
    }
}

async fn keep_looking(log: EventLog, wanted: watch::Sender<Wanted>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match log.told().await {
            Ok(told) => {
                let now = match &told {
                    Some(told) if told.control == Control::Pause => Wanted::Pause(told.revision),
                    Some(_) | None => Wanted::Work,
                };
                let has_changed = wanted.send_if_modified(|it| std::mem::replace(it, now) != now);
                if let (true, Some(told)) = (has_changed, told) {
                    let (actor, control) = (told.actor, told.control.entry_type());
                    tracing::info!(actor, control, "Workers paused or resumed by operator");
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "Cannot look whether fulfillment is paused");
            }
        }
    }
}
