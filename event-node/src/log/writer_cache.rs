//! State that the writer keeps between commits.

use std::sync::Arc;

use uuid::Uuid;

use crate::log::{
    generational_cache::GenerationalCache, requests::WriteOutcome, stream_metadata::StreamLimits,
};

/// Maximum number of cached streams per generation.
const CACHED_STREAMS: usize = 20_000;

/// Maximum number of cached event ids per generation, to recognise a repeated append without
/// expected revision.
const CACHED_IDS: usize = 50_000;

/// State that the writer keeps between commits. Cleared after a failed commit, whose uncommitted
/// changes it may contain.
pub(super) struct WriterCache {
    pub streams: GenerationalCache<Arc<str>, StreamState>,
    pub ids: GenerationalCache<(Arc<str>, Uuid), WrittenEvent>,
}

impl Default for WriterCache {
    fn default() -> Self {
        Self {
            streams: GenerationalCache::new(CACHED_STREAMS),
            ids: GenerationalCache::new(CACHED_IDS),
        }
    }
}

impl WriterCache {
    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.ids.clear();
    }
}

/// State of a stream for the writer.
#[derive(Debug, Clone)]
pub(super) struct StreamState {
    pub name: Arc<str>,
    pub last: Option<u64>,
    pub limits: StreamLimits,
}

/// Revision and position of a written event.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenEvent {
    pub revision: u64,
    pub position: u64,
}

impl From<WrittenEvent> for WriteOutcome {
    fn from(WrittenEvent { revision, position }: WrittenEvent) -> Self {
        Self::Written { revision: Some(revision), position: Some(position) }
    }
}
