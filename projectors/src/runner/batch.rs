//! From the feed to batches: how much is projected in one transaction, and how soon.

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::Recorded;
use event_log::{Feed, LoggedEvent, Position, Subscription};
use tokio::time::{Instant, sleep_until};

use super::ProjectorConfig;

/// How long a batch waits for the events that come with its first: those of one append.
const GATHER: Duration = Duration::from_millis(2);
/// How often the checkpoint moves while nothing happens to orders.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(1);

/// Events to project in one transaction, and how far the log is read with them.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Recorded>,
    /// Whose orders are, of those that begin here.
    pub(super) tenants: Vec<(OrderId, String)>,
    /// Events that cannot be read.
    pub(super) n_skipped: u64,
    pub(super) position: Option<Position>,
}

impl Batch {
    fn n_events(&self) -> u64 {
        self.events.len() as u64 + self.n_skipped
    }

    fn add(&mut self, feed: Feed) {
        match feed {
            Feed::Event(event) => {
                self.position = Some(event.position);
                self.add_event(&event);
            }
            Feed::Checkpoint(position) => self.position = Some(position),
            Feed::CaughtUp => {}
        }
    }

    /// An event that cannot be read would stop the projection for ever: it is named and passed
    /// over, and counted in the checkpoint.
    fn add_event(&mut self, event: &LoggedEvent) {
        let stream = event.order_id.stream();
        let revision = event.revision;
        if revision == 0 {
            let tenant = event.metadata().and_then(|it| it.tenant);
            self.tenants.extend(tenant.map(|it| (event.order_id, it)));
        }
        match event.decode() {
            Ok(recorded) if recorded.event.order_id() == event.order_id => {
                self.events.push(recorded);
            }
            Ok(_) => {
                tracing::warn!(stream, revision, "Event of another order passed over");
                self.n_skipped += 1;
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::warn!(error, stream, revision, "Unreadable event passed over");
                self.n_skipped += 1;
            }
        }
    }
}

/// Cuts the feed into batches: what is there at once if the projector was idle, else what comes
/// until `batch_ms` after the batch before, but never more than `batch_size` events.
pub(super) struct Batches {
    subscription: Subscription,
    batch_size: u64,
    interval: Duration,
    /// When the batch before was handed out.
    last: Instant,
}

impl Batches {
    pub(super) fn new(subscription: Subscription, config: &ProjectorConfig) -> Self {
        let interval = Duration::from_millis(config.batch_ms);
        let batch_size = config.batch_size.max(1) as u64;
        Self { subscription, batch_size, interval, last: Instant::now() }
    }

    /// The next batch; waits for it.
    pub(super) async fn next(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut first_event = None;
        while batch.n_events() < self.batch_size {
            let due = self.due(&batch, first_event);
            let next = if let Some(ready) = self.subscription.ready() {
                ready
            } else {
                tokio::select! {
                    next = self.subscription.next() => next,
                    () = reached(due) => break,
                }
            };
            batch.add(next);
            if batch.n_events() > 0 {
                first_event.get_or_insert_with(Instant::now);
            }
        }
        self.last = Instant::now();
        batch
    }

    /// When to hand out the batch as it is; `None` while there is nothing in it.
    fn due(&self, batch: &Batch, first_event: Option<Instant>) -> Option<Instant> {
        match (first_event, batch.position) {
            (Some(at), _) => Some((at + GATHER).max(self.last + self.interval)),
            (None, Some(_)) => Some(self.last + IDLE_CHECKPOINT),
            (None, None) => None,
        }
    }
}

async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    const ORDER: OrderId = OrderId(Uuid::from_u128(7));

    fn logged(commit: u64, data: &str) -> Feed {
        Feed::Event(LoggedEvent {
            order_id: ORDER,
            event_id: Uuid::from_u128(commit.into()),
            revision: commit,
            position: Position { commit, prepare: commit },
            event_type: "OrderStored".to_owned(),
            data: data.as_bytes().to_vec(),
            metadata: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn what_cannot_be_projected_is_counted_and_passed_over() {
        let stored = |id: Uuid| {
            logged(3, &format!(r#"{{"order_id":"{id}","stored_at":"1970-01-01T00:00:00Z"}}"#))
        };
        let mut batch = Batch::default();
        batch.add(stored(ORDER.0));
        batch.add(stored(Uuid::from_u128(8)));
        batch.add(logged(4, "no json"));
        assert_eq!((batch.events.len(), batch.n_skipped, batch.n_events()), (1, 2, 3));
        assert_eq!(batch.position, Some(Position { commit: 4, prepare: 4 }));

        batch.add(Feed::Checkpoint(Position { commit: 9, prepare: 9 }));
        batch.add(Feed::CaughtUp);
        assert_eq!(batch.position, Some(Position { commit: 9, prepare: 9 }));
    }
}
