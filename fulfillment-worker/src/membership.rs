//! One membership in the group: takes deliveries while there is room, answers each, and drains at
//! the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event_log::{Delivery, Group};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::breaker::Admission;
use crate::gateway::Gateway;
use crate::handle::Handler;
use crate::verdict::Verdict;

/// How long what was delivered may take to be handled once the membership is to end.
const DRAIN: Duration = Duration::from_secs(10);
/// The same if the process is to stop: with the times below, less than 5 seconds. What is cut off is
/// delivered again, and the gateway knows it by its key.
const STOP_DRAIN: Duration = Duration::from_secs(3);
/// How long the store may take to say whether work waits.
const STATS_PATIENCE: Duration = Duration::from_millis(500);
/// How long to wait for what the store delivers together with a first delivery.
const GATHER: Duration = Duration::from_millis(50);
/// How long the store may take for the last answers after that.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// A membership, from joining to leaving.
pub(crate) struct Membership<G> {
    group: Group,
    handler: Arc<Handler<G>>,
    admission: Arc<Admission>,
    /// How many deliveries may be handled at once.
    permits: Arc<Semaphore>,
    in_progress: JoinSet<Verdict>,
    /// Which delivery a task handles.
    delivery_ids: HashMap<task::Id, Uuid>,
    /// The process is to stop.
    stop: CancellationToken,
    /// Nobody waits out a retry any more: the next worker may as well take it now.
    ending: CancellationToken,
}

impl<G: Gateway> Membership<G> {
    pub(crate) fn new(
        group: Group,
        handler: Arc<Handler<G>>,
        admission: Arc<Admission>,
        concurrency: usize,
        stop: CancellationToken,
    ) -> Self {
        Self {
            group,
            handler,
            admission,
            permits: Arc::new(Semaphore::new(concurrency)),
            in_progress: JoinSet::new(),
            delivery_ids: HashMap::new(),
            stop,
            ending: CancellationToken::new(),
        }
    }

    /// Handles deliveries until `end`, then what is in progress.
    pub(crate) async fn serve(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                Some(ended) = self.in_progress.join_next_with_id() => {
                    let (id, verdict) = self.ended(ended);
                    answer(&self.group, id, verdict);
                }
                (delivery, permit) = next(&mut self.group, &self.permits) => {
                    self.begin(delivery, permit);
                }
            }
        }
        self.leave().await;
    }

    /// Finds out with one delivery whether the gateway is back, until `end`. With the one among so
    /// many that was tried least: what failed before may fail because of itself, and must not keep
    /// the breaker open for all others.
    pub(crate) async fn probe(mut self, n_candidates: usize, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut candidates: Vec<Delivery> = Vec::new();
        while self.admission.is_current() {
            tokio::select! {
                () = &mut end => break,
                () = self.gather(&mut candidates, n_candidates) => {}
            }
            let by_tries = |it: &(usize, &Delivery)| it.1.retry_count;
            let choice = candidates.iter().enumerate().min_by_key(by_tries).map_or(0, |it| it.0);
            let delivery = candidates.swap_remove(choice);
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { break };
            self.begin(delivery, permit);
            if let Some(ended) = self.in_progress.join_next_with_id().await {
                let (id, verdict) = self.ended(ended);
                answer(&self.group, id, verdict);
            }
        }
        self.leave().await;
    }

    /// Waits for a delivery, and for what else comes along with it.
    async fn gather(&mut self, candidates: &mut Vec<Delivery>, n_candidates: usize) {
        if candidates.is_empty() {
            candidates.push(self.group.next().await);
        }
        let deadline = Instant::now() + GATHER;
        while candidates.len() < n_candidates
            && let Ok(delivery) = timeout_at(deadline, self.group.next()).await
        {
            candidates.push(delivery);
        }
    }

    fn begin(&mut self, delivery: Delivery, permit: OwnedSemaphorePermit) {
        let span = tracing::info_span!(
            "fulfillment.delivery",
            order.id = %delivery.event.order_id,
            event.id = %delivery.event.event_id,
            retry_count = delivery.retry_count,
        );
        let id = delivery.id;
        let (handler, admission) = (Arc::clone(&self.handler), Arc::clone(&self.admission));
        let ending = self.ending.clone();
        let work = async move {
            let verdict = handler.handle(&delivery, permit, &admission).await;
            if let Verdict::Retry { after, .. } = &verdict {
                // The store would deliver it again at once.
                tokio::select! {
                    () = ending.cancelled() => {}
                    () = sleep(*after) => {}
                }
            }
            verdict
        };
        let task = self.in_progress.spawn(work.instrument(span));
        self.delivery_ids.insert(task.id(), id);
    }

    /// Which delivery has ended, and how. One that panicked has no verdict: the store delivers it
    /// again, and what is recorded counts it.
    fn ended(&mut self, ended: Result<(task::Id, Verdict), JoinError>) -> (Option<Uuid>, Verdict) {
        let (task, verdict) = ended.unwrap_or_else(|panic| {
            let error = &panic as &dyn std::error::Error;
            tracing::error!(error, "Delivery ended without a verdict");
            (panic.id(), Verdict::LetGo)
        });
        (self.delivery_ids.remove(&task), verdict)
    }

    /// Handles what was delivered, so that nobody has to wonder whether it was begun. For each
    /// answer the store would deliver the next, which would go back unhandled: so no answer is given
    /// before the last, and none at all if work waits. What is on record is found there by
    /// whoever is given it next.
    async fn leave(mut self) {
        self.ending.cancel();
        let mut answers = Vec::new();
        let patience = drain_patience(self.stop.clone());
        let work_waits = tokio::select! {
            work_waits = self.drain(&mut answers) => work_waits,
            () = patience => true,
        };
        let n_unfinished = self.in_progress.len();
        self.in_progress.shutdown().await;
        let n_handled = answers.len();
        // What was not begun goes back with the connection: it is nothing to wait for.
        answers.retain(|(_, verdict)| *verdict != Verdict::LetGo);
        if !work_waits {
            for (id, verdict) in answers {
                answer(&self.group, id, verdict);
            }
        }
        self.group.leave(LEAVE_PATIENCE).await;
        tracing::debug!(n_handled, n_unfinished, work_waits, "Left the group");
    }

    /// Handles all that was delivered, and returns whether more work waits at the store.
    async fn drain(&mut self, answers: &mut Vec<(Option<Uuid>, Verdict)>) -> bool {
        loop {
            self.finish(answers).await;
            let stats = timeout(STATS_PATIENCE, self.group.stats()).await;
            // What came while the store was asked is handled as well.
            match self.group.ready() {
                Some(delivery) => self.begin_late(delivery).await,
                None => return matches!(stats, Ok(Ok(it)) if it.waiting + it.retrying > 0),
            }
        }
    }

    /// Begins what was delivered and waits for all that is in progress.
    async fn finish(&mut self, answers: &mut Vec<(Option<Uuid>, Verdict)>) {
        loop {
            while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                let Some(delivery) = self.group.ready() else { break };
                self.begin(delivery, permit);
            }
            match self.in_progress.join_next_with_id().await {
                Some(ended) => answers.push(self.ended(ended)),
                None => return,
            }
        }
    }

    async fn begin_late(&mut self, delivery: Delivery) {
        // Nobody closes it.
        if let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
            self.begin(delivery, permit);
        }
    }
}

/// Waits until what is in progress has had its time: less once the process is to stop, which may come
/// later.
async fn drain_patience(stop: CancellationToken) {
    let stopped = async {
        stop.cancelled().await;
        sleep(STOP_DRAIN).await;
    };
    tokio::select! {
        () = sleep(DRAIN) => {}
        () = stopped => {}
    }
}

/// The next delivery, once there is room for it.
async fn next(group: &mut Group, permits: &Arc<Semaphore>) -> (Delivery, OwnedSemaphorePermit) {
    match Arc::clone(permits).acquire_owned().await {
        Ok(permit) => (group.next().await, permit),
        // Nobody closes it.
        Err(_) => std::future::pending().await,
    }
}

fn answer(group: &Group, delivery_id: Option<Uuid>, verdict: Verdict) {
    let Some(id) = delivery_id else { return };
    match verdict {
        Verdict::Ack | Verdict::Postpone { .. } => group.ack(id),
        Verdict::Retry { reason, .. } => group.retry(id, reason),
        Verdict::Park { reason } => group.park(id, reason),
        Verdict::LetGo => group.let_go(id),
    }
}
