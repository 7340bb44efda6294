//! A scripted gateway, a worker in a task, and waits for orders and groups.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{FailureClass, Order, Status};
use event_log::{EventLog, GroupStats};
use fulfillment_worker::{
    Fulfillment, FulfillmentConfig, GROUP, Gateway, GatewayError, GatewayKind, GatewayUrl, Outcome,
    WorkerError, run_worker,
};
use service_kit::clock::Clock;
use testkit::store::{Store, clock_at};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Maximum duration of any wait. Reached only when something is broken.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Behaviour of the scripted gateway for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Fulfil,
    Fail(FailureClass),
    /// Fails this many times, then fulfils.
    FailTimes(usize),
    /// Asks for an hour this many times, then fulfils.
    AskTimes(usize),
    /// Fulfils when the test releases it.
    Hold,
    /// Never answers.
    Hang,
}

/// A gateway with scripted behaviour that records its calls.
#[derive(Clone)]
pub(crate) struct Scripted {
    usual: Behaviour,
    special: Arc<BTreeMap<OrderId, Behaviour>>,
    pub(crate) calls: Arc<Mutex<Vec<Fulfillment>>>,
    called: Arc<Notify>,
    released: CancellationToken,
}

impl Scripted {
    pub(crate) fn new(usual: Behaviour) -> Self {
        Self::with(usual, [])
    }

    pub(crate) fn with(
        usual: Behaviour,
        special: impl IntoIterator<Item = (OrderId, Behaviour)>,
    ) -> Self {
        let special = Arc::new(special.into_iter().collect());
        let released = CancellationToken::new();
        Self { usual, special, calls: Arc::default(), called: Arc::default(), released }
    }

    /// Releases held orders.
    pub(crate) fn release(&self) {
        self.released.cancel();
    }

    pub(crate) fn n_calls(&self, order_id: OrderId) -> usize {
        self.calls.lock().unwrap().iter().filter(|it| it.order_id == order_id).count()
    }

    /// Waits until the gateway was called `n_calls` times for the order.
    pub(crate) async fn wait_for_calls(&self, order_id: OrderId, n_calls: usize) {
        let waiting = async {
            loop {
                let called = self.called.notified();
                if self.n_calls(order_id) >= n_calls {
                    return;
                }
                called.await;
            }
        };
        timeout(TEST_TIMEOUT, waiting).await.expect("the gateway is called");
    }
}

impl Gateway for Scripted {
    async fn fulfill(&self, fulfillment: &Fulfillment) -> Result<Outcome, GatewayError> {
        self.calls.lock().unwrap().push(fulfillment.clone());
        self.called.notify_waiters();
        let behaviour = *self.special.get(&fulfillment.order_id).unwrap_or(&self.usual);
        let failed = |class| Err(GatewayError::new(class, "scripted failure".to_owned()));
        match behaviour {
            Behaviour::FailTimes(n_times) if self.n_calls(fulfillment.order_id) <= n_times => {
                failed(FailureClass::Transient)
            }
            Behaviour::AskTimes(n_times) if self.n_calls(fulfillment.order_id) <= n_times => {
                let busy = GatewayError::new(FailureClass::Transient, "busy".to_owned());
                Err(GatewayError { retry_after: Some(Duration::from_hours(1)), ..busy })
            }
            Behaviour::Hold => {
                self.released.cancelled().await;
                Ok(Outcome::Fulfilled { reference: "scripted".to_owned() })
            }
            Behaviour::Fulfil | Behaviour::FailTimes(_) | Behaviour::AskTimes(_) => {
                Ok(Outcome::Fulfilled { reference: "scripted".to_owned() })
            }
            Behaviour::Fail(class) => failed(class),
            Behaviour::Hang => std::future::pending().await,
        }
    }
}

pub(crate) fn config() -> FulfillmentConfig {
    FulfillmentConfig {
        gateway: GatewayKind::Simulated,
        allow_simulated: false,
        success_rate: 1.0,
        error_rate: 0.0,
        latency_ms: 0,
        seed: 1,
        timeout_ms: 10_000,
        max_retries: 3,
        backoff_ms: 1,
        backoff_max_ms: 5,
        concurrency: 16,
        message_timeout_ms: 30_000,
        stale_after_ms: 600_000,
        url: GatewayUrl::default(),
        breaker_failures: 10,
        breaker_open_ms: 5_000,
    }
}

/// A worker in a task. Dropping it is a crash.
pub(crate) struct Worker {
    task: JoinSet<Result<(), WorkerError>>,
    stop: CancellationToken,
}

/// Starts a worker one second after the orders were placed.
pub(crate) fn start(store: &Store, gateway: &Scripted, config: FulfillmentConfig) -> Worker {
    start_at(store, gateway, config, 8)
}

pub(crate) fn start_at(
    store: &Store,
    gateway: &Scripted,
    config: FulfillmentConfig,
    second: i64,
) -> Worker {
    start_on(&store.log, gateway, config, second)
}

pub(crate) fn start_on(
    log: &EventLog,
    gateway: &Scripted,
    config: FulfillmentConfig,
    second: i64,
) -> Worker {
    start_by(log, gateway, config, clock_at(second))
}

/// Starts a worker with this clock.
pub(crate) fn start_by(
    log: &EventLog,
    gateway: &Scripted,
    config: FulfillmentConfig,
    clock: Clock,
) -> Worker {
    let stop = CancellationToken::new();
    let mut task = JoinSet::new();
    task.spawn(run_worker(log.clone(), gateway.clone(), config, clock, stop.clone()));
    Worker { task, stop }
}

impl Worker {
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        timeout(TEST_TIMEOUT, self.task.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }

    /// Waits until the worker ends by itself, and returns its result.
    pub(crate) async fn wait_for_end(mut self) -> Result<(), WorkerError> {
        timeout(TEST_TIMEOUT, self.task.join_next()).await.unwrap().unwrap().unwrap()
    }

    pub(crate) async fn crash(mut self) {
        self.task.shutdown().await;
    }
}

/// Waits until the order is as wanted, and returns it.
pub(crate) async fn wait_for_order(
    log: &EventLog,
    id: OrderId,
    wanted: impl Fn(&Order) -> bool,
) -> Order {
    let looking = async {
        loop {
            let order = log.load(id).await.unwrap().order.unwrap();
            if wanted(&order) {
                return order;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, looking).await.expect("the order is as wanted in time")
}

pub(crate) async fn wait_for_end_of(log: &EventLog, id: OrderId) -> Order {
    wait_for_order(log, id, |it| it.status != Status::Processing).await
}

pub(crate) async fn event_types(log: &EventLog, id: OrderId) -> Vec<String> {
    log.read_history(id).await.unwrap().into_iter().skip(4).map(|it| it.event_type).collect()
}

pub(crate) async fn wait_for_group(log: &EventLog, wanted: impl Fn(GroupStats) -> bool) {
    let looking = async {
        while !wanted(log.store().group_stats(GROUP).await.unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, looking).await.expect("the group is as wanted in time");
}

pub(crate) async fn wait_for_empty_group(log: &EventLog) {
    wait_for_group(log, |it| it.in_flight == 0).await;
}
