//! What the writer remembers between commits.

use std::sync::Arc;

use uuid::Uuid;

use crate::log::{cache::Cache, metadata::Limits, write::Outcome};

/// Streams whose state the writer remembers.
const CACHED_STREAMS: usize = 20_000;

/// Recently written event ids that the writer remembers, to recognise a repeated append that
/// names no revision.
const CACHED_IDS: usize = 50_000;

/// What the writer remembers between commits. Dropped after a failed one.
pub(super) struct Memory {
    pub streams: Cache<Arc<str>, StreamState>,
    pub ids: Cache<(Arc<str>, Uuid), Placed>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { streams: Cache::new(CACHED_STREAMS), ids: Cache::new(CACHED_IDS) }
    }
}

impl Memory {
    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.ids.clear();
    }
}

/// A stream as the writer sees it.
#[derive(Debug, Clone)]
pub(super) struct StreamState {
    pub name: Arc<str>,
    pub last: Option<u64>,
    pub limits: Limits,
}

/// Where an event was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub revision: u64,
    pub position: u64,
}

impl From<Placed> for Outcome {
    fn from(Placed { revision, position }: Placed) -> Self {
        Self::Written { revision: Some(revision), position: Some(position) }
    }
}
