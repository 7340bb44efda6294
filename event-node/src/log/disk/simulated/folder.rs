//! A folder of simulated disks: changes of names wait for a flush as the bytes of a file do.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::log::disk::{
    Disk, Folder,
    simulated::{Power, SimulatedDisk},
};

type Files = BTreeMap<String, Arc<SimulatedDisk>>;

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
enum Change {
    Created(String, Arc<SimulatedDisk>),
    Renamed(String, String),
    Removed(String),
}

impl Change {
    fn apply(&self, files: &mut Files) {
        match self {
            Self::Created(name, disk) => drop(files.insert(name.clone(), Arc::clone(disk))),
            Self::Renamed(from, to) => {
                if let Some(disk) = files.remove(from) {
                    files.insert(to.clone(), disk);
                }
            }
            Self::Removed(name) => drop(files.remove(name)),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    files: Files,
    durable: Files,
    unsynced: Vec<Change>,
}

/// The simulated folder. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(in crate::log) struct SimulatedFolder {
    state: Arc<Mutex<State>>,
    power: Power,
}

impl SimulatedFolder {
    /// Returns an empty folder.
    pub(in crate::log) fn powered(power: Power) -> Self {
        Self { state: Arc::default(), power }
    }

    /// Returns the file of that name, to plan its faults.
    pub(in crate::log) fn disk(&self, name: &str) -> Option<Arc<SimulatedDisk>> {
        self.state().files.get(name).cloned()
    }

    /// Returns the folder as the next run finds it after a kill: nothing is lost.
    pub(in crate::log) fn after_kill(&self, power: Power) -> Self {
        let state = self.state();
        Self::holding(state.files.iter().map(|(name, disk)| (name.clone(), disk.cached())), power)
    }

    /// Returns the folder as a power loss leaves it. `is_written` chooses which of the changes that
    /// were not flushed are on the disk all the same: any pages of files, and the names up to the
    /// first change that it refuses, because journaling file systems keep the order of those.
    pub(in crate::log) fn after_power_loss(
        &self,
        mut is_written: impl FnMut() -> bool,
        power: Power,
    ) -> Self {
        let state = self.state();
        let mut files = state.durable.clone();
        let kept = state.unsynced.iter().take_while(|_| is_written());
        kept.for_each(|change| change.apply(&mut files));
        let files: Vec<_> = files
            .into_iter()
            .map(|(name, disk)| (name, disk.after_power_loss(&mut is_written)))
            .collect();
        Self::holding(files, power)
    }

    fn holding(files: impl IntoIterator<Item = (String, Vec<u8>)>, power: Power) -> Self {
        let files: Files = files
            .into_iter()
            .map(|(name, bytes)| (name, Arc::new(SimulatedDisk::powered(bytes, power.clone()))))
            .collect();
        let state = State { durable: files.clone(), files, unsynced: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), power }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.power.use_once()?;
        let mut state = self.state();
        change.apply(&mut state.files);
        state.unsynced.push(change);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Folder for SimulatedFolder {
    fn path(&self) -> PathBuf {
        PathBuf::from("simulated")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(self.disk(name).map(|disk| disk as Arc<dyn Disk>))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let disk = Arc::new(SimulatedDisk::powered(Vec::new(), self.power.clone()));
        self.change(Change::Created(name.to_owned(), Arc::clone(&disk)))?;
        Ok(disk)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.disk(from).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Renamed(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.disk(name).is_none() {
            return Ok(());
        }
        self.change(Change::Removed(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        self.power.use_once()?;
        let mut state = self.state();
        state.durable = state.files.clone();
        state.unsynced.clear();
        Ok(())
    }
}
