//! A folder of simulated disks. Name changes need an fsync of the folder to become durable.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use service_kit::mutex::lock;

use crate::log::disk::{
    Disk, Folder,
    simulated::{Power, SimulatedDisk},
};

type Files = BTreeMap<String, Arc<SimulatedDisk>>;

/// A name change that is not durable yet.
#[derive(Debug, Clone)]
enum Change {
    Created(String, Arc<SimulatedDisk>),
    Renamed(String, String),
    Removed(String),
}

impl Change {
    fn apply_to(&self, files: &mut Files) {
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

/// A simulated folder. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(in crate::log) struct SimulatedFolder {
    state: Arc<Mutex<State>>,
    power: Power,
}

impl SimulatedFolder {
    /// Creates an empty folder.
    pub(in crate::log) fn with_power(power: Power) -> Self {
        Self { state: Arc::default(), power }
    }

    /// Returns the file of this name, for fault injection.
    pub(in crate::log) fn simulated_disk(&self, name: &str) -> Option<Arc<SimulatedDisk>> {
        lock(&self.state).files.get(name).cloned()
    }

    /// Returns the folder after a process kill: nothing is lost.
    pub(in crate::log) fn after_kill(&self, power: Power) -> Self {
        let state = lock(&self.state);
        Self::with_files(
            state.files.iter().map(|(name, disk)| (name.clone(), disk.cached_bytes())),
            power,
        )
    }

    /// Returns the folder after a power loss. `is_written` selects the unsynced changes that
    /// survive: any file pages, and name changes up to the first one that it rejects. Journaling
    /// file systems keep name changes in order.
    pub(in crate::log) fn after_power_loss(
        &self,
        mut is_written: impl FnMut() -> bool,
        power: Power,
    ) -> Self {
        let state = lock(&self.state);
        let mut files = state.durable.clone();
        let kept = state.unsynced.iter().take_while(|_| is_written());
        kept.for_each(|change| change.apply_to(&mut files));
        let files: Vec<_> = files
            .into_iter()
            .map(|(name, disk)| (name, disk.after_power_loss(&mut is_written)))
            .collect();
        Self::with_files(files, power)
    }

    fn with_files(files: impl IntoIterator<Item = (String, Vec<u8>)>, power: Power) -> Self {
        let files: Files = files
            .into_iter()
            .map(|(name, bytes)| (name, Arc::new(SimulatedDisk::with_power(bytes, power.clone()))))
            .collect();
        // Both maps share the disks: a name is made durable by `sync_names`, the bytes by an fsync
        // of the file. Neither implies the other.
        let state = State { durable: files.clone(), files, unsynced: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), power }
    }

    fn apply_change(&self, change: Change) -> io::Result<()> {
        self.power.use_once()?;
        let mut state = lock(&self.state);
        change.apply_to(&mut state.files);
        state.unsynced.push(change);
        Ok(())
    }
}

impl Folder for SimulatedFolder {
    fn path(&self) -> PathBuf {
        PathBuf::from("simulated")
    }

    fn list_names(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.state).files.keys().cloned().collect())
    }

    fn open_file(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(self.simulated_disk(name).map(|disk| disk as Arc<dyn Disk>))
    }

    fn create_file(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.power.fail_if_planned()?;
        // A new disk even for an existing name: until `sync_names`, a power loss brings the old
        // file back.
        let disk = Arc::new(SimulatedDisk::with_power(Vec::new(), self.power.clone()));
        self.apply_change(Change::Created(name.to_owned(), Arc::clone(&disk)))?;
        Ok(disk)
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        if self.simulated_disk(from).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.power.fail_if_planned()?;
        self.apply_change(Change::Renamed(from.to_owned(), to.to_owned()))
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        if self.simulated_disk(name).is_none() {
            return Ok(());
        }
        self.apply_change(Change::Removed(name.to_owned()))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.power.use_once()?;
        self.power.fail_if_planned()?;
        let mut state = lock(&self.state);
        state.durable = state.files.clone();
        state.unsynced.clear();
        Ok(())
    }
}
