//! What every role needs and no role is about: configuration, telemetry, lifecycle, health and
//! problem bodies.

pub mod age;
pub mod auth;
pub mod clock;
pub mod config;
pub mod error;
pub mod extract;
pub mod health;
pub mod http;
pub mod lifecycle;
pub mod problem;
pub mod tasks;
pub mod telemetry;
