//! Guarantees under faults: no accepted order is lost, none is fulfilled twice, and failures are reported
//! and recovered automatically.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

mod chaos;
mod fixture;
mod outage;
mod restarts;
mod workers;
