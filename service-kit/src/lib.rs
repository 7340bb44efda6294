//! What every role needs and no role is about: configuration, telemetry, lifecycle, health and
//! problem bodies.

pub mod clock;
