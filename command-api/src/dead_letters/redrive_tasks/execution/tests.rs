//! Redrive tasks that are killed, cancelled and taken over: every order is counted once.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use domain::operations::{FailureFilter, RedriveCancelled};
use domain::order::{Order, OrderCommand, OrderError, RecordFailed, Redrive, Stage, Status};
use governor::clock::FakeRelativeClock;
use proptest::prelude::*;
use service_kit::lifecycle::RoleError;
use testkit::spec::at;
use testkit::store::{Store, cause as cause_of, clock};
use testkit::wait;

use super::*;

/// Several batches per task, so that a kill can occur in any part of a batch.
const MAX_TEST_BATCH: u32 = 4;
const TASK: u128 = 1_000;

/// A read model of failed orders that reads their streams.
struct ReadModel {
    log: EventLog,
    order_ids: Vec<OrderId>,
    is_away: AtomicBool,
    /// Duration of the read of a page.
    latency: Duration,
}

#[async_trait]
impl Failures for ReadModel {
    async fn page(
        &self,
        _: &FailureFilter,
        after: Option<RedriveMark>,
        limit: u32,
    ) -> Result<Vec<RedriveMark>, RoleError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err("connection refused".into());
        }
        sleep(self.latency).await;
        let mut failures = Vec::new();
        for order_id in self.order_ids.iter().copied() {
            let order = self.log.load(order_id).await?.order.unwrap();
            if let (Status::Failed, Some(failed_at)) = (order.status, order.failed_at) {
                failures.push(RedriveMark { order_id, failed_at });
            }
        }
        let key = |failure: &RedriveMark| (failure.failed_at, failure.order_id.0);
        failures.sort_by_key(key);
        let behind = failures
            .into_iter()
            .filter(|failure| after.is_none_or(|last| key(failure) > key(&last)));
        Ok(behind.take(usize::try_from(limit).unwrap()).collect())
    }

    async fn count(&self, _: &FailureFilter) -> Result<u64, RoleError> {
        Ok(u64::try_from(self.order_ids.len()).unwrap())
    }
}

struct World {
    store: Store,
    read_model: Arc<ReadModel>,
}

impl World {
    /// Starts a store with `n_orders` dead letters, and begins a task for all of them.
    async fn start(n_orders: u128, rate_per_second: Option<u32>, latency: Duration) -> Self {
        let store = Store::start_embedded().await;
        let mut order_ids = Vec::new();
        for number in 1..=n_orders {
            let order_id = store.place(number).await;
            let command = OrderCommand::RecordFailed(RecordFailed {
                attempt: 1,
                deliveries: 4,
                stage: Stage::DeadLetter,
                code: "retries_exhausted".to_owned(),
                reason: "no answer".to_owned(),
                at: at(8),
            });
            change(&store.log, order_id, &command, 10_000 + number).await.unwrap();
            order_ids.push(order_id);
        }
        let log = store.log.clone();
        let is_away = AtomicBool::new(false);
        let read_model = Arc::new(ReadModel { log, order_ids, is_away, latency });
        let world = Self { store, read_model };
        let begun = RedriveBegun {
            task_id: Uuid::from_u128(TASK),
            filter: FailureFilter { failed_before: Some(at(9)), ..FailureFilter::default() },
            rate_per_second,
            reason: "the gateway is back".to_owned(),
            actor: "ann".to_owned(),
            started_at: at(9),
            n_total: 0,
            runner: Uuid::from_u128(1),
        };
        world.append(&RedriveEntry::Begun(Box::new(begun))).await;
        world
    }

    async fn append(&self, entry: &RedriveEntry) {
        let redrives = TaskJournal::new(&self.store.log);
        loop {
            let (_, last) = redrives.newest(2).await.unwrap();
            let cause = cause_of(clock().new_id().as_u128());
            match redrives.append(entry, last, &cause).await {
                Err(LogError::Conflict { .. }) => {}
                appended => {
                    appended.unwrap();
                    return;
                }
            }
        }
    }

    async fn task(&self) -> (RedriveTask, Option<u64>) {
        let (tasks, last) = TaskJournal::new(&self.store.log).newest(2).await.unwrap();
        (tasks.into_iter().next().unwrap(), last)
    }

    fn execution(&self, runner: u128) -> Execution {
        let failures = Arc::clone(&self.read_model) as Arc<dyn Failures>;
        let log = self.store.log.clone();
        let execution = Execution::new(Uuid::from_u128(runner), log, failures, clock());
        Execution { max_batch: MAX_TEST_BATCH, ..execution }
    }

    /// Runs the task in a process that is killed after `n_steps` polls.
    async fn run_killed(&self, runner: u128, mut n_steps: usize) {
        let (task, last) = self.task().await;
        let execution = self.execution(runner);
        let mut run = Box::pin(execution.run(task, last));
        poll_fn(|cx| match n_steps.checked_sub(1) {
            Some(left) => {
                n_steps = left;
                run.as_mut().poll(cx).map(|ended| ended.unwrap())
            }
            None => Poll::Ready(()),
        })
        .await;
    }

    async fn run(&self, runner: u128) -> RedriveTask {
        let (task, last) = self.task().await;
        if task.is_unfinished() {
            self.execution(runner).run(task, last).await.unwrap();
        }
        self.task().await.0
    }

    /// Returns the number of orders that the task has redriven, by their streams. Fails if an order was
    /// redriven twice.
    async fn n_redriven(&self) -> u64 {
        let mut n_redriven = 0;
        for order_id in &self.read_model.order_ids {
            let history = self.store.log.read_history(*order_id).await.unwrap();
            let queued = history.iter().filter(|event| {
                let metadata = event.metadata();
                event.event_type == "OrderQueued"
                    && metadata
                        .is_some_and(|metadata| metadata.causation_id == Uuid::from_u128(TASK))
            });
            let n_queued = queued.count();
            assert!(n_queued <= 1, "order {order_id} was redriven {n_queued} times");
            n_redriven += u64::try_from(n_queued).unwrap();
        }
        n_redriven
    }
}

async fn change(
    log: &EventLog,
    order_id: OrderId,
    command: &OrderCommand,
    id: u128,
) -> Result<Order, OrderError> {
    let loaded = log.load(order_id).await.unwrap();
    let head = loaded.head();
    log.execute_command(loaded.order.unwrap(), head, command, &cause_of(id)).await.unwrap()
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// After kills at any step, the counts equal those of the streams: each order is counted once.
    #[test]
    fn counts_are_exact_after_any_kills(
        kills in prop::collection::vec(1..120_usize, 0..6),
        is_one_redriven_by_hand: bool,
    ) {
        block_on(async {
            let world = World::start(14, None, Duration::ZERO).await;
            let mut runner = 1;
            for n_steps in kills {
                world.run_killed(runner, n_steps).await;
                runner += 1;
            }
            if is_one_redriven_by_hand {
                let reason = "by hand".to_owned();
                let redrive = Redrive { reason, customer_id: None, items: None };
                let order_id = world.read_model.order_ids[0];
                // Refused if a killed process has redriven the order.
                drop(change(&world.store.log, order_id, &OrderCommand::Redrive(redrive), 1).await);
            }
            let task = world.run(runner).await;
            assert_eq!(task.state, RedriveState::Succeeded);
            assert_eq!(task.counts.n_redriven, world.n_redriven().await);
            assert_eq!(task.counts.n_failed, 0);
            let n_by_hand = 14 - task.counts.n_redriven;
            assert!(task.counts.n_skipped <= n_by_hand && n_by_hand <= 1, "{:?}", task.counts);
        });
    }

    /// If no process runs a task when it is cancelled, the next process counts its last batch.
    #[test]
    fn cancelled_redrive_is_counted_after_any_kill(n_steps in 1..150_usize) {
        block_on(async {
            let world = World::start(10, None, Duration::ZERO).await;
            world.run_killed(1, n_steps).await;
            let (before, _) = world.task().await;
            if before.state == RedriveState::Running {
                let cancelled = RedriveCancelled {
                    task_id: before.begun.task_id,
                    actor: "bob".to_owned(),
                    cancelled_at: at(20),
                };
                world.append(&RedriveEntry::Cancelled(cancelled)).await;
            }
            let task = world.run(2).await;
            assert_eq!(task.counts.n_redriven, world.n_redriven().await);
            assert!(!task.is_unfinished());
        });
    }
}

#[tokio::test]
async fn page_slower_than_a_lease_renewal_is_completed() {
    let world = World::start(3, None, LEASE_RENEWAL + Duration::from_millis(300)).await;
    let task = world.run(1).await;
    assert_eq!((task.state, task.counts.n_redriven), (RedriveState::Succeeded, 3));
}

#[tokio::test]
async fn task_reports_a_wait_for_the_read_model_until_it_answers() {
    let world = World::start(2, None, Duration::ZERO).await;
    world.read_model.is_away.store(true, Ordering::SeqCst);
    let watched = async {
        wait::until_async("the wait is reported", async || world.task().await.0.waiting_for).await;
        world.read_model.is_away.store(false, Ordering::SeqCst);
    };
    let (task, ()) = tokio::join!(world.run(1), watched);
    assert_eq!((task.counts.n_redriven, task.waiting_for), (2, None));
}

#[tokio::test]
async fn task_cancelled_while_it_runs_records_its_counts() {
    let world = World::start(9, Some(MAX_TEST_BATCH), Duration::ZERO).await;
    let cancelling = async {
        let first = async || Some(world.task().await.0).filter(|task| task.counts.n_redriven > 0);
        let task = wait::until_async("a batch is done", first).await;
        let task_id = task.begun.task_id;
        let cancelled = RedriveCancelled { task_id, actor: "bob".to_owned(), cancelled_at: at(20) };
        world.append(&RedriveEntry::Cancelled(cancelled)).await;
    };
    let (task, ()) = tokio::join!(world.run(1), cancelling);
    assert_eq!(task.state, RedriveState::Cancelled);
    assert!(!task.is_unfinished() && task.counts.n_redriven < 9, "{:?}", task.counts);
    assert_eq!(task.counts.n_redriven, world.n_redriven().await);
}

#[test]
fn stall_is_not_caught_up() {
    let allowed = |limiter: &RateLimiter<_, _, _, _>| {
        (0..1_000_000).take_while(|_| limiter.check().is_ok()).count()
    };
    for (rate, at_once) in [(2, 1), (200, 2), (100_000, 1_000)] {
        let clock = FakeRelativeClock::default();
        let quota = to_quota(NonZeroU32::new(rate).unwrap());
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        assert_eq!(allowed(&limiter), at_once);
        clock.advance(Duration::from_mins(1));
        assert_eq!(allowed(&limiter), at_once, "a minute at {rate} a second is not caught up");
        clock.advance(Duration::from_secs(1) / rate);
        assert_eq!(allowed(&limiter), 1);
    }
}
