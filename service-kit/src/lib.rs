//! Building blocks of every role that are about no role: configuration, telemetry, lifecycle, HTTP
//! server, authentication, health and problem bodies.

pub mod address;
pub mod api_doc;
pub mod auth;
pub mod certificate;
pub mod clock;
mod concurrency_limit;
pub mod config;
pub mod error;
pub mod etag;
pub mod extract;
pub mod health;
pub mod http;
pub mod lifecycle;
pub mod metrics;
pub mod mutex;
pub mod ops;
pub mod outage;
pub mod problem;
pub mod telemetry;
pub mod tls;
pub mod trace_context;
pub mod wait;
