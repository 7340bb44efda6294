//! Durations of the gateway's calls, summed up minute by minute for the worker's reports.

use std::sync::Mutex;
use std::time::Duration;

use domain::operations::GatewayCalls;
use service_kit::mutex::lock;

/// Buckets per doubling of the duration: the 95th percentile is at most 10 % too high.
const BUCKETS_PER_DOUBLING: f64 = 8.0;
/// Number of buckets, the last one for all calls of more than an hour.
const N_BUCKETS: usize = 256;

/// Calls that ended since the last [`take`](CallRecorder::take).
#[derive(Default)]
pub(crate) struct CallRecorder(Mutex<Calls>);

struct Calls {
    buckets: [u32; N_BUCKETS],
    n_calls: u64,
    total: Duration,
    max: Duration,
}

impl Default for Calls {
    fn default() -> Self {
        let zero = Duration::ZERO;
        Self { buckets: [0; N_BUCKETS], n_calls: 0, total: zero, max: zero }
    }
}

impl CallRecorder {
    /// Counts a call that took this long.
    pub(crate) fn record(&self, duration: Duration) {
        let mut calls = lock(&self.0);
        calls.buckets[bucket_of(duration)] += 1;
        calls.n_calls += 1;
        calls.total += duration;
        calls.max = calls.max.max(duration);
    }

    /// Returns the summary of the calls, and forgets them.
    pub(crate) fn take(&self) -> GatewayCalls {
        std::mem::take(&mut *lock(&self.0)).summary()
    }
}

impl Calls {
    fn summary(&self) -> GatewayCalls {
        if self.n_calls == 0 {
            return GatewayCalls::default();
        }
        let to_micros =
            |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (max_us, total_us) = (to_micros(self.max), to_micros(self.total));
        // The number of the slowest call among the fastest 95 %, rounded up.
        let rank = (self.n_calls * 95).div_ceil(100);
        let mut n_faster = 0;
        let bucket = self.buckets.iter().position(|n_calls| {
            n_faster += u64::from(*n_calls);
            n_faster >= rank
        });
        // No call took longer than the slowest.
        let p95_us = bucket.map_or(max_us, |bucket| upper_bound_us(bucket).min(max_us));
        GatewayCalls { n_calls: self.n_calls, mean_us: total_us / self.n_calls, p95_us, max_us }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the logarithm is between 0 and 130"
)]
fn bucket_of(duration: Duration) -> usize {
    let micros = (duration.as_secs_f64() * 1e6).max(1.0);
    ((micros.log2() * BUCKETS_PER_DOUBLING).ceil() as usize).min(N_BUCKETS - 1)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the number of a bucket is small, and its bound is less than 2^32"
)]
fn upper_bound_us(bucket: usize) -> u64 {
    (bucket as f64 / BUCKETS_PER_DOUBLING).exp2().ceil() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn calls_are_summed_up_and_forgotten() {
        let recorder = CallRecorder::default();
        for millis in 1..=100 {
            recorder.record(Duration::from_millis(millis));
        }
        let calls = recorder.take();
        assert_eq!((calls.n_calls, calls.mean_us, calls.max_us), (100, 50_500, 100_000));
        assert!((95_000..=104_500).contains(&calls.p95_us), "{calls:?}");
        assert_eq!(recorder.take(), GatewayCalls::default());
    }

    proptest! {
        #[test]
        fn percentile_is_at_most_a_tenth_too_high(
            mut durations in prop::collection::vec(1_u64..3_600_000_000, 1..200),
        ) {
            let recorder = CallRecorder::default();
            for micros in &durations {
                recorder.record(Duration::from_micros(*micros));
            }
            durations.sort_unstable();
            let exact = durations[(durations.len() * 95).div_ceil(100) - 1];
            let p95_us = recorder.take().p95_us;
            prop_assert!(p95_us >= exact, "{p95_us} < {exact}");
            prop_assert!(p95_us <= exact + exact / 10 + 1, "{p95_us} > {exact}");
        }
    }
}
