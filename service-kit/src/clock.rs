//! Time and fresh ids as values that the composition root makes and hands down.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

/// Where the time and fresh ids come from. Cheap to clone.
///
/// Only `dofs` and the tests make one, so nothing else in the workspace can read the system's
/// clock or its randomness unseen.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    id: Arc<dyn Fn() -> Uuid + Send + Sync>,
}

impl Clock {
    /// A clock that asks `now` for the time and `id` for a fresh id.
    pub fn new(
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        id: impl Fn() -> Uuid + Send + Sync + 'static,
    ) -> Self {
        Self { now: Arc::new(now), id: Arc::new(id) }
    }

    /// The time, cut to whole microseconds: what every store of ours keeps, so that a time reads
    /// back equal to what was written.
    pub fn now(&self) -> Timestamp {
        let now = (self.now)();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// A fresh id.
    pub fn new_id(&self) -> Uuid {
        (self.id)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
