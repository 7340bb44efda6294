//! Simulated power: after a given number of changes it is off, and every further change fails. One
//! chosen change can fail instead.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use service_kit::mutex::lock;

use crate::log::disk::simulated::{Fault, io_error_of};

/// Power supply shared by disks and folders that fail together.
#[derive(Debug, Clone)]
pub(in crate::log) struct Power {
    changes_left: Arc<AtomicU64>,
    /// The next planned fault, and the number of changes before it.
    planned: Arc<Mutex<Option<(u64, Fault)>>>,
}

impl Default for Power {
    /// Returns power that never fails.
    fn default() -> Self {
        Self::for_changes(u64::MAX)
    }
}

impl Power {
    /// Returns power for a number of changes: writes, fsyncs and name changes.
    pub(in crate::log) fn for_changes(changes: u64) -> Self {
        Self { changes_left: Arc::new(AtomicU64::new(changes)), planned: Arc::default() }
    }

    pub(in crate::log) fn changes_left(&self) -> u64 {
        self.changes_left.load(Ordering::Relaxed)
    }

    /// Uses power for one change; fails if the power is off.
    pub(super) fn use_once(&self) -> io::Result<()> {
        let used = self
            .changes_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        used.map(drop).map_err(|_| io::Error::other("the power is off"))
    }

    /// Makes one change fail, after `n_changes` others. Removals and truncations do not count.
    pub(in crate::log) fn plan_fault(&self, n_changes: u64, fault: Fault) {
        *lock(&self.planned) = Some((n_changes, fault));
    }

    /// Returns the fault of the current change, if one is planned for it.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        let mut planned = lock(&self.planned);
        let (n_changes, fault) = (*planned)?;
        *planned = n_changes.checked_sub(1).map(|left| (left, fault));
        (n_changes == 0).then_some(fault)
    }

    /// Fails if a fault is planned for the current change.
    pub(super) fn fail_if_planned(&self) -> io::Result<()> {
        self.take_fault().map_or(Ok(()), |fault| Err(io_error_of(fault)))
    }
}
