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
mod pause;
mod sweeper;
