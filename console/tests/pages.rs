//! Pages over an API with fixed answers: what they show, what their forms send, and sessions.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing set-up fails the test")]

#[path = "pages/actions.rs"]
mod actions;
#[path = "pages/dead_letter_actions.rs"]
mod dead_letter_actions;
#[path = "pages/dead_letters.rs"]
mod dead_letters;
#[path = "pages/fake_api.rs"]
mod fake_api;
#[path = "pages/feed.rs"]
mod feed;
#[path = "pages/frame.rs"]
mod frame;
#[path = "pages/live.rs"]
mod live;
#[path = "pages/order.rs"]
mod order;
#[path = "pages/order_actions.rs"]
mod order_actions;
#[path = "pages/orders.rs"]
mod orders;
#[path = "pages/overview.rs"]
mod overview;
#[path = "pages/projections.rs"]
mod projections;
#[path = "pages/sessions.rs"]
mod sessions;
#[path = "pages/system.rs"]
mod system;
#[path = "pages/visitor.rs"]
mod visitor;
#[path = "pages/workers.rs"]
mod workers;
