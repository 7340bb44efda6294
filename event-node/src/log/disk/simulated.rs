//! Disks in memory with a page cache that behaves as Linux's does.
//!
//! Writes go into the cache. A flush writes the changed pages to the medium. If it fails, the pages
//! count as written all the same: a later flush does not try them again, and reads still see them.

mod folder;
mod power;

use std::{
    collections::BTreeSet,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::log::disk::Disk;
pub(in crate::log) use crate::log::disk::simulated::{folder::SimulatedFolder, power::Power};

/// Bytes of a page.
pub(in crate::log) const PAGE: usize = 4_096;

/// What a call of the disk is to do instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Fault {
    /// `EIO`.
    Failed,
    /// `ENOSPC`; a write leaves the first half of its bytes behind.
    Full,
}

#[derive(Debug, Default)]
struct State {
    cache: Vec<u8>,
    medium: Vec<u8>,
    /// Numbers of the pages that the cache has changed and the medium has not.
    dirty: BTreeSet<usize>,
    next_write: Option<Fault>,
    next_sync: Option<Fault>,
}

/// The simulated disk.
#[derive(Debug, Default)]
pub(in crate::log) struct SimulatedDisk {
    state: Mutex<State>,
    power: Power,
}

impl SimulatedDisk {
    /// Returns a disk whose medium and cache hold `bytes`.
    pub(in crate::log) fn holding(bytes: Vec<u8>) -> Self {
        Self::powered(bytes, Power::default())
    }

    /// Returns a disk whose calls fail once the power is off.
    fn powered(bytes: Vec<u8>, power: Power) -> Self {
        let state = State { cache: bytes.clone(), medium: bytes, ..State::default() };
        Self { state: Mutex::new(state), power }
    }

    /// Lets the next write fail.
    pub(in crate::log) fn fail_next_write(&self, fault: Fault) {
        self.state().next_write = Some(fault);
    }

    /// Lets the next flush fail.
    pub(in crate::log) fn fail_next_sync(&self, fault: Fault) {
        self.state().next_sync = Some(fault);
    }

    /// Returns what a power loss leaves: the medium, and of the changed pages those that
    /// `is_written` chooses, because the kernel may write them at any time.
    pub(in crate::log) fn after_power_loss(&self, mut is_written: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.state();
        let mut bytes = state.medium.clone();
        for page in state.dirty.iter().copied().filter(|_| is_written()) {
            state.write_page(page, &mut bytes);
        }
        bytes
    }

    /// Returns what reads see now.
    fn cached(&self) -> Vec<u8> {
        self.state().cache.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        let dirty = std::mem::take(&mut state.dirty);
        if let Some(fault) = state.next_sync.take() {
            return Err(error(fault));
        }
        let mut medium = std::mem::take(&mut state.medium);
        medium.truncate(state.cache.len());
        for page in dirty {
            state.write_page(page, &mut medium);
        }
        medium.resize(state.cache.len(), 0);
        state.medium = medium;
        Ok(())
    }
}

impl State {
    fn mark_dirty(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / PAGE..to.div_ceil(PAGE));
    }

    /// Copies a page of the cache into `bytes`.
    fn write_page(&self, page: usize, bytes: &mut Vec<u8>) {
        let (from, to) = (page * PAGE, ((page + 1) * PAGE).min(self.cache.len()));
        if from < to {
            bytes.resize(bytes.len().max(to), 0);
            bytes[from..to].copy_from_slice(&self.cache[from..to]);
        }
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Failed => io::Error::from_raw_os_error(5),
        Fault::Full => io::ErrorKind::StorageFull.into(),
    }
}

impl Disk for SimulatedDisk {
    fn length(&self) -> io::Result<u64> {
        Ok(self.state().cache.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let state = self.state();
        let held = state.cache.get(from..from + bytes.len());
        bytes.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.power.use_once()?;
        let mut state = self.state();
        let fault = state.next_write.take();
        let bytes = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        let (from, length) = (usize::try_from(offset).unwrap(), bytes.len());
        let end = state.cache.len().max(from + length);
        state.cache.resize(end, 0);
        state.cache[from..from + length].copy_from_slice(bytes);
        state.mark_dirty(from, from + length);
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn sync(&self) -> io::Result<()> {
        self.power.use_once()?;
        self.flush()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.power.use_once()?;
        let mut state = self.state();
        let length = usize::try_from(length).unwrap();
        state.cache.truncate(length);
        // The rest of the last page is cleared, which changes it.
        state.mark_dirty(length.saturating_sub(1), length);
        drop(state);
        self.flush()
    }
}
