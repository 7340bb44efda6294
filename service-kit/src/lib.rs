//! What every role needs and no role is about: configuration, telemetry, lifecycle, health and
//! problem bodies.

pub mod address;
pub mod age;
pub mod api_doc;
pub mod auth;
pub mod clock;
pub mod config;
pub mod error;
pub mod etag;
pub mod extract;
pub mod health;
pub mod http;
pub mod lifecycle;
pub mod moment;
pub mod outage;
pub mod problem;
mod slots;
pub mod tasks;
pub mod telemetry;
pub mod wait;
