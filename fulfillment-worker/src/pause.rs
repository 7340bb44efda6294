//! What operators told all workers, as this worker knows it.

use std::time::Duration;

use domain::operations::Control;
use event_log::EventLog;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at what operators told the workers.
const LOOK: Duration = Duration::from_secs(1);

/// Whether this worker is to take work. Until that is known, it takes none.
pub(crate) struct Pause {
    may_work: watch::Receiver<bool>,
    _watcher: JoinSet<()>,
}

impl Pause {
    /// Begins to watch.
    pub(crate) fn watch(log: &EventLog) -> Self {
        let (sender, may_work) = watch::channel(false);
        let mut watcher = JoinSet::new();
        watcher.spawn(keep_looking(log.clone(), sender));
        Self { may_work, _watcher: watcher }
    }

    /// Waits until work may be taken.
    pub(crate) async fn lifted(&self) {
        self.until(true).await;
    }

    /// Waits until work may not be taken any more.
    pub(crate) async fn begun(&self) {
        self.until(false).await;
    }

    async fn until(&self, wanted: bool) {
        if self.may_work.clone().wait_for(|it| *it == wanted).await.is_err() {
            // Nobody watches any more: what was known stays.
            std::future::pending::<()>().await;
        }
    }
}

async fn keep_looking(log: EventLog, may_work: watch::Sender<bool>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match log.told().await {
            Ok(told) => {
                let now_may = told.as_ref().is_none_or(|it| it.control == Control::Resume);
                let has_changed =
                    may_work.send_if_modified(|may| std::mem::replace(may, now_may) != now_may);
                if let (true, Some(told)) = (has_changed, told) {
                    tracing::info!(may_work = now_may, actor = told.actor, "Operator's word");
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "Cannot look whether fulfillment is paused");
            }
        }
    }
}
