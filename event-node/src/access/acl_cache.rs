//! Cache of access control lists. A change of a list takes effect for the next call.

use std::sync::{Arc, Mutex};

use hashlink::LruCache;
use service_kit::mutex::lock;

use crate::{
    access::{
        caller::Caller,
        decision::{Decision, StreamAction, decide, is_granted},
    },
    log::{DefaultAcls, Log, LogError, SETTINGS_STREAM, StreamAcl},
};

/// Number of streams whose lists are cached.
const CACHED_STREAMS: usize = 40_000;

/// The lists of recently used streams. Nothing is read from the log before the first check.
pub(crate) struct AclCache {
    log: Log,
    lists: Mutex<CachedLists>,
}

struct CachedLists {
    /// Changes up to this position are removed from the cache.
    seen_position: u64,
    /// Number of times that lists were removed because they had changed.
    n_changes: u64,
    streams: LruCache<String, Option<Arc<StreamAcl>>>,
    defaults: Option<Arc<DefaultAcls>>,
}

impl AclCache {
    pub(crate) fn new(log: Log) -> Self {
        let lists = CachedLists {
            seen_position: log.head(),
            n_changes: 0,
            streams: LruCache::new(CACHED_STREAMS),
            defaults: None,
        };
        Self { log, lists: Mutex::new(lists) }
    }

    /// Returns whether the caller may do `action` on `stream`.
    pub(crate) async fn is_allowed(
        &self,
        caller: &Caller,
        stream: &str,
        action: StreamAction,
    ) -> Result<bool, LogError> {
        match decide(caller, stream, action) {
            Decision::Allow => Ok(true),
            Decision::Deny => Ok(false),
            Decision::ByList { stream, right } => {
                let (acl, defaults) = self.find_lists(stream).await?;
                Ok(is_granted(caller, (stream, right), acl.as_deref(), &defaults))
            }
        }
    }

    /// Returns the list of `stream`, if it has one, and the default lists.
    async fn find_lists(
        &self,
        stream: &str,
    ) -> Result<(Option<Arc<StreamAcl>>, Arc<DefaultAcls>), LogError> {
        let (acl, defaults, n_changes) = {
            let mut lists = lock(&self.lists);
            lists.remove_changed(&self.log);
            (lists.streams.get(stream).cloned(), lists.defaults.clone(), lists.n_changes)
        };
        if let (Some(acl), Some(defaults)) = (&acl, &defaults) {
            return Ok((acl.clone(), Arc::clone(defaults)));
        }
        let acl = match acl {
            Some(acl) => acl,
            None => self.log.read_stream_acl(stream).await?.map(Arc::new),
        };
        let defaults = match defaults {
            Some(defaults) => defaults,
            None => Arc::new(self.log.read_default_acls().await?),
        };
        let mut lists = lock(&self.lists);
        // A change that another call has seen meanwhile may be newer than the lists that were read.
        // Without this check, the cache would keep the older ones.
        if lists.n_changes == n_changes {
            lists.streams.insert(stream.to_owned(), acl.clone());
            lists.defaults = Some(Arc::clone(&defaults));
        }
        Ok((acl, defaults))
    }
}

impl CachedLists {
    /// Removes lists that have changed since the last call.
    fn remove_changed(&mut self, log: &Log) {
        if log.head() <= self.seen_position {
            return;
        }
        let Some(changes) = log.metadata_changes_after(self.seen_position) else {
            // More was written since than the log keeps in memory.
            self.seen_position = log.head();
            self.n_changes += 1;
            self.streams.clear();
            self.defaults = None;
            return;
        };
        self.seen_position = changes.up_to;
        for stream in changes.streams {
            self.n_changes += 1;
            if stream == SETTINGS_STREAM {
                self.defaults = None;
            } else {
                self.streams.remove(stream.as_str());
            }
        }
    }
}
