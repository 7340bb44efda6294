//! Projections: folds, both stores under one contract, projectors and routes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so; clippy sees tests only in functions marked so"
)]

mod apply;
mod as_of;
mod chain;
mod contract;
mod customers;
mod dead_letters;
mod deleted;
mod event_list;
mod events;
mod faults;
mod foreign_events;
mod history;
mod idle;
mod installation;
mod invariants;
mod journal;
mod later_releases;
mod lookups;
mod monotonic;
mod operator_actions;
mod pooler;
mod projection_list;
mod query_api;
mod rebuild;
mod roles;
mod runner;
mod sets;
mod stores;
mod sweeper;
mod system;
mod verify;
