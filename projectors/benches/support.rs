//! Parts of the measurement.

pub(crate) mod child;
pub(crate) mod fill;
pub(crate) mod latency;
pub(crate) mod limit;

use std::time::Duration;

pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    count * 1_000 / millis.max(1)
}
