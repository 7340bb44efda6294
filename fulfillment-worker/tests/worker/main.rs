//! The worker against a real event store.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed precondition fails the test"
)]

mod calls;
mod dead_letters;
mod delivery;
mod drain;
mod fixture;
mod group;
mod later_releases;
mod pause;
mod postponed;
mod supervision;
