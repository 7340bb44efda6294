//! Clocks for tests.

use service_kit::clock::Clock;
use uuid::Uuid;

use crate::spec::at;

/// Returns the system's clock, with random ids.
#[expect(clippy::disallowed_methods, reason = "tests are a composition root")]
pub fn clock() -> Clock {
    Clock::new(jiff::Timestamp::now, Uuid::new_v4)
}

/// Returns a clock that always shows this second, with random ids.
#[expect(clippy::disallowed_methods, reason = "tests are a composition root")]
pub fn clock_at(second: i64) -> Clock {
    Clock::new(move || at(second), Uuid::new_v4)
}
