//! The files below the store: what it needs of them, so that tests can let them fail or lose power.

#[cfg(test)]
pub(super) mod simulated;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

/// A file that is written at offsets and flushed.
pub(super) trait Disk: Send + Sync + std::fmt::Debug {
    /// Returns the length in bytes.
    fn length(&self) -> io::Result<u64>;
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all that was written durable, and with it the length of the file.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file off at `length`, and makes that durable.
    fn cut(&self, length: u64) -> io::Result<()>;
}

/// The folder that holds the files of a store.
pub(super) trait Folder: Send + Sync + std::fmt::Debug {
    /// Returns the folder's path, for messages.
    fn path(&self) -> PathBuf;
    /// Returns the names of the files in it.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file; `None` if there is none of that name.
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>>;
    /// Creates an empty file. One that has the name already is removed, not emptied: whoever has it
    /// open keeps its content.
    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>>;
    /// Renames a file, in place of one that has the new name already.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. One that is not there is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names of the files durable, as `create`, `rename` and `remove` left them.
    fn sync(&self) -> io::Result<()>;
}

impl Disk for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        // A shorter length is no part of what `sync_data` promises.
        self.sync_all()
    }
}

/// A folder of the operating system.
#[derive(Debug, Clone)]
pub(super) struct DiskFolder {
    path: PathBuf,
    is_read_only: bool,
}

impl DiskFolder {
    /// A folder whose files are read and written.
    pub(super) fn writable(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_read_only: false }
    }

    /// A folder whose files are only read, which may be on a read-only file system.
    pub(super) fn read_only(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_read_only: true }
    }
}

impl Folder for DiskFolder {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        // Files of the store have ASCII names; others are not its.
        let names: Vec<_> = names.collect::<io::Result<_>>()?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        let mut options = OpenOptions::new();
        match options.read(true).write(!self.is_read_only).open(self.path.join(name)) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.remove(name)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        Ok(Arc::new(options.open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
