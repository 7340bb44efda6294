//! The power of simulated disks: after a number of changes it goes off, and every change fails.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Shared by everything that loses its power at one time.
#[derive(Debug, Clone)]
pub(in crate::log) struct Power {
    changes_left: Arc<AtomicU64>,
}

impl Default for Power {
    /// Power that stays on.
    fn default() -> Self {
        Self::for_changes(u64::MAX)
    }
}

impl Power {
    /// Power for so many changes: writes, flushes, and changes of names.
    pub(in crate::log) fn for_changes(changes: u64) -> Self {
        Self { changes_left: Arc::new(AtomicU64::new(changes)) }
    }

    /// Changes that are left.
    pub(in crate::log) fn changes_left(&self) -> u64 {
        self.changes_left.load(Ordering::Relaxed)
    }

    /// Takes the power for one change, and fails if there is none left.
    pub(super) fn use_once(&self) -> io::Result<()> {
        let used = self
            .changes_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        used.map(drop).map_err(|_| io::Error::other("the power is off"))
    }
}
