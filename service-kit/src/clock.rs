//! Time and new ids, as a value that the composition root creates and passes on.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

/// Source of the current time and of new ids. Cheap to clone.
///
/// Only `dofs` and the tests create one, so no other crate reads the system clock or randomness.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    id: Arc<dyn Fn() -> Uuid + Send + Sync>,
}

impl Clock {
    /// Creates a clock that calls `now` for the time and `id` for a new id.
    pub fn new(
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        id: impl Fn() -> Uuid + Send + Sync + 'static,
    ) -> Self {
        Self { now: Arc::new(now), id: Arc::new(id) }
    }

    /// Returns the time in whole microseconds. The stores keep no more, so a stored time reads back
    /// unchanged.
    pub fn now(&self) -> Timestamp {
        let now = (self.now)();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// Returns a new id.
    pub fn new_id(&self) -> Uuid {
        (self.id)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
