//! Files and folders as the store uses them. Tests replace them by simulated ones that fail or lose
//! power.

#[cfg(test)]
pub(super) mod simulated;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

/// A file with reads and writes at offsets.
pub(super) trait Disk: Send + Sync + std::fmt::Debug {
    fn byte_length(&self) -> io::Result<u64>;
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all written bytes and the file length durable (`fdatasync`).
    fn sync_bytes(&self) -> io::Result<()>;
    /// Truncates the file to `length` durably.
    fn truncate_to(&self, length: u64) -> io::Result<()>;
}

/// The folder of a store.
pub(super) trait Folder: Send + Sync + std::fmt::Debug {
    /// Returns the folder's path, for messages.
    fn path(&self) -> PathBuf;
    fn list_names(&self) -> io::Result<Vec<String>>;
    /// Opens a file; `None` if it does not exist.
    fn open_file(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>>;
    /// Creates an empty file. An existing file of this name is unlinked instead of truncated, so
    /// that processes and readers that have it open keep its content.
    fn create_file(&self, name: &str) -> io::Result<Arc<dyn Disk>>;
    /// Renames a file and replaces an existing file of the new name.
    fn rename_file(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. A missing file is not an error.
    fn remove_file(&self, name: &str) -> io::Result<()>;
    /// Makes created, renamed and removed file names durable (fsync of the folder).
    fn sync_names(&self) -> io::Result<()>;
}

impl Disk for File {
    fn byte_length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_bytes(&self) -> io::Result<()> {
        // `fdatasync` is enough for appends: it writes a greater file length too, because reads
        // need it.
        self.sync_data()
    }

    fn truncate_to(&self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        // `sync_data` need not write a shorter length to disk; a torn write could reappear after a
        // power loss.
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
    /// Opens the folder for reading and writing.
    pub(super) fn writable(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_read_only: false }
    }

    /// Opens the folder for reading only, for example on a read-only file system.
    pub(super) fn read_only(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_read_only: true }
    }
}

impl Folder for DiskFolder {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn list_names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        // Names that are not UTF-8 cannot belong to the store.
        let names: Vec<_> = names.collect::<io::Result<_>>()?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn open_file(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        let mut options = OpenOptions::new();
        match options.read(true).write(!self.is_read_only).open(self.path.join(name)) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_file(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        // Unlink instead of truncating: readers may have the old file open.
        self.remove_file(name)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        Ok(Arc::new(options.open(self.path.join(name))?))
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        // An fsync of a file does not make its name durable; that takes an fsync of its folder.
        File::open(&self.path)?.sync_all()
    }
}
