//! Metrics of the asynchronous runtime, sampled.

use std::time::Duration;

use metrics::{Unit, describe_gauge, describe_histogram, gauge, histogram};
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Recorder, set_log_lines_dropped, to_gauge};
use crate::telemetry;

const WORKERS: &str = "tokio_runtime_workers";
const ALIVE_TASKS: &str = "tokio_runtime_alive_tasks";
const QUEUE_DEPTH: &str = "tokio_runtime_global_queue_depth";
const BUSY_RATIO: &str = "tokio_runtime_busy_ratio";
const LAG: &str = "tokio_runtime_lag_seconds";

/// Interval between two measurements of the lag.
const TICK: Duration = Duration::from_secs(1);
/// Number of ticks between two samples of the other metrics.
const TICKS_PER_SAMPLE: u32 = 5;

/// Samples the runtime and the log sink, and maintains the recorder, until `stop`.
pub async fn sample_runtime(recorder: Recorder, stop: CancellationToken) {
    let sampling = async {
        let runtime = Handle::current().metrics();
        let lag = histogram!(LAG);
        let mut sampled_at = Instant::now();
        let mut busy = total_busy_time(&runtime);
        loop {
            for _ in 0..TICKS_PER_SAMPLE {
                let due = Instant::now() + TICK;
                sleep_until(due).await;
                lag.record(due.elapsed());
            }
            recorder.run_upkeep();
            set_log_lines_dropped(telemetry::n_dropped_lines());
            let (now, total) = (Instant::now(), total_busy_time(&runtime));
            let available = (now - sampled_at) * saturating_u32(runtime.num_workers());
            gauge!(BUSY_RATIO).set(total.saturating_sub(busy).div_duration_f64(available).min(1.0));
            gauge!(WORKERS).set(to_gauge(runtime.num_workers() as u64));
            gauge!(ALIVE_TASKS).set(to_gauge(runtime.num_alive_tasks() as u64));
            gauge!(QUEUE_DEPTH).set(to_gauge(runtime.global_queue_depth() as u64));
            (sampled_at, busy) = (now, total);
        }
    };
    let _: Option<()> = stop.run_until_cancelled(sampling).await;
}

fn total_busy_time(runtime: &RuntimeMetrics) -> Duration {
    (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker)).sum()
}

fn saturating_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn describe() {
    describe_gauge!(WORKERS, Unit::Count, "Worker threads of the runtime");
    describe_gauge!(ALIVE_TASKS, Unit::Count, "Tasks that have not ended");
    describe_gauge!(QUEUE_DEPTH, Unit::Count, "Tasks that wait in the global queue");
    describe_gauge!(
        BUSY_RATIO,
        "Share of the worker threads' time that was busy in the last seconds"
    );
    describe_histogram!(LAG, Unit::Seconds, "Delay of a timer beyond its deadline");
    for name in [WORKERS, ALIVE_TASKS, QUEUE_DEPTH, BUSY_RATIO] {
        gauge!(name).set(0.0);
    }
    drop(histogram!(LAG));
}
