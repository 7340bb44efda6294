//! The recorder of a process: collects all metrics and renders them for Prometheus.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

/// Bucket limits of durations, in seconds.
const DURATIONS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bucket limits of durations that clients feel as a whole, waits between retries included, in seconds.
const LONG_DURATIONS: [f64; 12] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];

/// The recorder of this process; empty until [`Recorder::install`].
static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Collects the metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    handle: PrometheusHandle,
    process: Collector,
}

impl Recorder {
    /// Installs the recorder of this process and returns it. The histograms named in
    /// `long_durations` have buckets up to half an hour, all others up to 30 seconds. A second call
    /// returns the recorder of the first.
    ///
    /// Instruments that are created before this call never record.
    pub fn install(long_durations: &[&str]) -> Self {
        RECORDER.get_or_init(|| Self::build(long_durations)).clone()
    }

    fn build(long_durations: &[&str]) -> Self {
        let builder = long_durations.iter().fold(with_durations(), |builder, name| {
            let matcher = Matcher::Full((*name).to_owned());
            builder.set_buckets_for_metric(matcher, &LONG_DURATIONS).unwrap_or_else(never_empty)
        });
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // An error means that another recorder is installed, e.g. by a test.
        drop(metrics::set_global_recorder(recorder));
        let process = Collector::default();
        process.describe();
        super::describe();
        Self { handle, process }
    }

    /// Returns all metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Moves recorded durations into their buckets. Without this, they are kept one by one until the
    /// next [`render`](Self::render).
    pub(super) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn with_durations() -> PrometheusBuilder {
    PrometheusBuilder::new().set_buckets(&DURATIONS).unwrap_or_else(never_empty)
}

/// The builder refuses only an empty list of buckets.
fn never_empty(_: metrics_exporter_prometheus::BuildError) -> PrometheusBuilder {
    PrometheusBuilder::new()
}
