//! Pages over an API with fixed answers: what they show, what their forms send, and sessions.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing set-up fails the test")]

#[path = "pages/fake_api.rs"]
mod fake_api;
#[path = "pages/frame.rs"]
mod frame;
#[path = "pages/overview.rs"]
mod overview;
#[path = "pages/sessions.rs"]
mod sessions;
#[path = "pages/visitor.rs"]
mod visitor;
