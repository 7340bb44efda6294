//! State that the writer keeps between commits.

use std::sync::Arc;

use hashlink::LruCache;
use uuid::Uuid;

use crate::log::{requests::WriteOutcome, stream_metadata::StreamLimits};

const CACHED_STREAMS: usize = 40_000;

/// Maximum number of cached event ids, to recognise a repeated append without expected revision.
const CACHED_IDS: usize = 100_000;

/// State that the writer keeps between commits. Cleared after a failed commit, whose uncommitted
/// changes it may contain.
pub(super) struct WriterCache {
    pub streams: LruCache<Arc<str>, StreamState>,
    pub ids: LruCache<(Arc<str>, Uuid), WrittenEvent>,
}

impl Default for WriterCache {
    fn default() -> Self {
        Self { streams: LruCache::new(CACHED_STREAMS), ids: LruCache::new(CACHED_IDS) }
    }
}

impl WriterCache {
    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.ids.clear();
    }
}

#[derive(Debug, Clone)]
pub(super) struct StreamState {
    pub name: Arc<str>,
    pub last: Option<u64>,
    pub limits: StreamLimits,
}

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
