//! Number of appends per commit, taken from the node's log events.

use std::sync::{Mutex, PoisonError};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

static WRITES: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Starts to record commits. Must be called once per process.
pub(crate) fn start_recording() {
    tracing::subscriber::set_global_default(CommitRecorder).expect("no other subscriber");
}

/// Returns the number of writes of each commit since the last call.
pub(crate) fn take_recorded() -> Vec<u64> {
    std::mem::take(&mut *WRITES.lock().unwrap_or_else(PoisonError::into_inner))
}

struct CommitRecorder;

impl Subscriber for CommitRecorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "event_node::log::writer"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut WritesField);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct WritesField;

impl Visit for WritesField {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "writes" {
            WRITES.lock().unwrap_or_else(PoisonError::into_inner).push(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
