//! Lock that keeps other processes out of a data folder.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::log::error::OpenError;

/// File name of the lock in the data folder. The file is never removed. The lock on it counts, and
/// the operating system releases that when the process ends.
const LOCK_FILE: &str = "lock";

/// Lock on a folder, held until dropped.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Creates the folder if necessary and locks it.
    pub(super) fn acquire(folder: &Path) -> Result<Self, OpenError> {
        create_folder_durably(folder)
            .map_err(|source| OpenError::CreateFolder { folder: folder.to_owned(), source })?;
        let path = folder.join(LOCK_FILE);
        let unusable = |source| OpenError::LockFile { file: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            // The content is irrelevant, and another process may hold the lock.
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(unusable)?;
        Self::lock_file(file, folder, path)
    }

    /// Locks a folder for reading. Returns `None` on a read-only file system without a lock file,
    /// where no process can write.
    pub(super) fn acquire_for_reading(folder: &Path) -> Result<Option<Self>, OpenError> {
        let path = folder.join(LOCK_FILE);
        // Try to open it for reading first: `acquire` opens for writing, which a read-only file
        // system refuses. `flock` needs no write access.
        match File::open(&path) {
            Ok(file) => return Self::lock_file(file, folder, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(OpenError::LockFile { file: path, source }),
        }
        match Self::acquire(folder) {
            Err(OpenError::LockFile { source, .. })
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                Ok(None)
            }
            taken => taken.map(Some),
        }
    }

    fn lock_file(file: File, folder: &Path, path: PathBuf) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(OpenError::LockFile { file: path, source }),
        }
    }
}

/// Creates the folder and its missing parents, and makes their names durable. Otherwise a power
/// loss could remove a folder with an acknowledged log.
fn create_folder_durably(folder: &Path) -> io::Result<()> {
    let has_name = |path: &Path| !path.as_os_str().is_empty();
    let missing: Vec<_> =
        folder.ancestors().take_while(|path| has_name(path) && !path.exists()).collect();
    fs::create_dir_all(folder)?;
    // The last run may have been killed between creation and fsync. So the folder's own name is
    // always synced, even if it exists.
    for created in std::iter::once(folder).chain(missing) {
        let parent = created.parent().filter(|parent| has_name(parent)).unwrap_or(Path::new("."));
        match File::open(parent) {
            Ok(parent) => parent.sync_all()?,
            // A user who cannot read the parent folder cannot have created this folder.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parent_folders_are_created() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b/c");
        for _ in 0..2 {
            FolderLock::acquire(&data).unwrap();
            assert!(data.is_dir());
        }
    }

    #[test]
    fn locked_folder_refuses_a_second_lock() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(folder.path()).unwrap();
        let refused = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(matches!(refused, OpenError::InUse { .. }));
        drop(first);
        FolderLock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn read_lock_excludes_other_locks() {
        let folder = tempfile::tempdir().unwrap();
        // The first lock creates the lock file, the second one finds it.
        for _ in 0..2 {
            let reader = FolderLock::acquire_for_reading(folder.path()).unwrap().unwrap();
            for refused in [
                FolderLock::acquire(folder.path()),
                FolderLock::acquire_for_reading(folder.path()).map(Option::unwrap),
            ] {
                assert!(matches!(refused, Err(OpenError::InUse { .. })));
            }
            drop(reader);
        }
        FolderLock::acquire(folder.path()).unwrap();
    }
}
