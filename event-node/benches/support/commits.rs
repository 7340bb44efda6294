//! What the node commits, as it reports it: how many appends each time.

use std::sync::{Mutex, PoisonError};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

static WRITES: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Begins to listen. Once in a process.
pub(crate) fn listen() {
    tracing::subscriber::set_global_default(Listener).expect("nobody else listens");
}

/// The writes of each commit since the last call.
pub(crate) fn take() -> Vec<u64> {
    std::mem::take(&mut *WRITES.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "event_node::log::writer"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Writes);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Writes;

impl Visit for Writes {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "writes" {
            WRITES.lock().unwrap_or_else(PoisonError::into_inner).push(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
