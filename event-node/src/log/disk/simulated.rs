//! In-memory disks with a page cache that fails like that of Linux.
//!
//! Writes change the cache. An fsync writes the changed pages to the medium. If it fails, the pages
//! count as clean: a later fsync does not retry them, and reads still return them.

mod folder;
mod power;

use std::{collections::BTreeSet, io, sync::Mutex};

use service_kit::mutex::lock;

use crate::log::disk::Disk;
pub(in crate::log) use crate::log::disk::simulated::{folder::SimulatedFolder, power::Power};

/// Page size in bytes.
pub(in crate::log) const PAGE: usize = 4_096;

/// Fault that replaces a disk call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Fault {
    /// `EIO`.
    Failed,
    /// `ENOSPC`; a write stores the first half of its bytes.
    Full,
}

#[derive(Debug, Default)]
struct State {
    cache: Vec<u8>,
    medium: Vec<u8>,
    /// Numbers of pages that differ between cache and medium.
    dirty: BTreeSet<usize>,
    next_write: Option<Fault>,
    next_sync: Option<Fault>,
}

#[derive(Debug, Default)]
pub(in crate::log) struct SimulatedDisk {
    state: Mutex<State>,
    power: Power,
}

impl SimulatedDisk {
    /// Creates a disk with `bytes` in cache and medium.
    pub(in crate::log) fn with_content(bytes: Vec<u8>) -> Self {
        Self::with_power(bytes, Power::default())
    }

    /// Creates a disk whose calls fail once the power is off.
    fn with_power(bytes: Vec<u8>, power: Power) -> Self {
        let state = State { cache: bytes.clone(), medium: bytes, ..State::default() };
        Self { state: Mutex::new(state), power }
    }

    pub(in crate::log) fn fail_next_write(&self, fault: Fault) {
        lock(&self.state).next_write = Some(fault);
    }

    pub(in crate::log) fn fail_next_sync(&self, fault: Fault) {
        lock(&self.state).next_sync = Some(fault);
    }

    /// Returns the bytes after a power loss: the medium, plus the changed pages for which
    /// `is_written` returns true. The kernel may write pages back at any time.
    pub(in crate::log) fn after_power_loss(&self, mut is_written: impl FnMut() -> bool) -> Vec<u8> {
        let state = lock(&self.state);
        let mut bytes = state.medium.clone();
        for page in state.dirty.iter().copied().filter(|_| is_written()) {
            state.write_page(page, &mut bytes);
        }
        bytes
    }

    /// Returns the bytes that reads see.
    fn cached_bytes(&self) -> Vec<u8> {
        lock(&self.state).cache.clone()
    }

    fn write_back(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        // Take the pages before the fault: after a failed fsync Linux counts them as clean.
        let dirty = std::mem::take(&mut state.dirty);
        if let Some(fault) = state.next_sync.take() {
            return Err(io_error_of(fault));
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

fn io_error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Failed => io::Error::from_raw_os_error(5),
        Fault::Full => io::ErrorKind::StorageFull.into(),
    }
}

impl Disk for SimulatedDisk {
    fn byte_length(&self) -> io::Result<u64> {
        Ok(lock(&self.state).cache.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let state = lock(&self.state);
        let held = state.cache.get(from..from + bytes.len());
        bytes.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.power.use_once()?;
        let planned = self.power.take_fault();
        let mut state = lock(&self.state);
        let fault = planned.or(state.next_write.take());
        // A failed write stores its first half, so that callers meet torn entries.
        let bytes = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        let (from, length) = (usize::try_from(offset).unwrap(), bytes.len());
        let end = state.cache.len().max(from + length);
        state.cache.resize(end, 0);
        state.cache[from..from + length].copy_from_slice(bytes);
        state.mark_dirty(from, from + length);
        fault.map_or(Ok(()), |fault| Err(io_error_of(fault)))
    }

    fn sync_bytes(&self) -> io::Result<()> {
        self.power.use_once()?;
        if let Some(fault) = self.power.take_fault() {
            self.fail_next_sync(fault);
        }
        self.write_back()
    }

    fn truncate_to(&self, length: u64) -> io::Result<()> {
        self.power.use_once()?;
        let mut state = lock(&self.state);
        let length = usize::try_from(length).unwrap();
        state.cache.truncate(length);
        // Truncation zeroes the rest of the last page, so that page is dirty too.
        state.mark_dirty(length.saturating_sub(1), length);
        drop(state);
        self.write_back()
    }
}

/// Returns pseudo-random choices. One of four seeds always answers `false`, one always `true`.
pub(in crate::log) fn pseudo_random_choices(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match seed % 4 {
            0 => false,
            1 => true,
            _ => state >> 63 == 1,
        }
    }
}
