//! The worker over a real event store.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test cannot go on without ends it"
)]

mod calls;
mod dead_letters;
mod delivery;
mod drain;
mod fixture;
mod group;
mod pause;
mod postponed;
mod supervision;
mod sweeper;
