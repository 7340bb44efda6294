//! Keeps a second process out of a data folder.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::log::error::OpenError;

/// File name of the lock inside the data folder. The file stays; what counts is the lock on it,
/// which the operating system releases when the process ends in whatever way.
const LOCK_FILE: &str = "lock";

/// Holds the folder until dropped.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Creates the folder if need be and locks it.
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        create_durably(folder)
            .map_err(|source| OpenError::CreateFolder { folder: folder.to_owned(), source })?;
        let path = folder.join(LOCK_FILE);
        let unusable = |source| OpenError::LockFile { file: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(unusable)?;
        Self::lock(file, folder, path)
    }

    /// Locks a folder that is only read. On a read-only file system nothing has to be kept out, and the file of
    /// the lock may be missing: `None`.
    pub(super) fn take_to_read(folder: &Path) -> Result<Option<Self>, OpenError> {
        let path = folder.join(LOCK_FILE);
        match File::open(&path) {
            Ok(file) => return Self::lock(file, folder, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(OpenError::LockFile { file: path, source }),
        }
        match Self::take(folder) {
            Err(OpenError::LockFile { source, .. })
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                Ok(None)
            }
            taken => taken.map(Some),
        }
    }

    fn lock(file: File, folder: &Path, path: PathBuf) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(OpenError::LockFile { file: path, source }),
        }
    }
}

/// Creates the folder and those above it that are missing, and makes their names durable: a log whose
/// folder is gone after a power loss is lost with it.
fn create_durably(folder: &Path) -> io::Result<()> {
    let has_name = |path: &Path| !path.as_os_str().is_empty();
    let missing: Vec<_> =
        folder.ancestors().take_while(|path| has_name(path) && !path.exists()).collect();
    fs::create_dir_all(folder)?;
    // The last run may have been killed between the two, so the folder's own name is always flushed.
    for created in std::iter::once(folder).chain(missing) {
        let parent = created.parent().filter(|parent| has_name(parent)).unwrap_or(Path::new("."));
        match File::open(parent) {
            Ok(parent) => parent.sync_all()?,
            // A user that may not read the parent folder did not create this one.
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
    fn folders_are_made_with_those_above_them() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b/c");
        for _ in 0..2 {
            FolderLock::take(&data).unwrap();
            assert!(data.is_dir());
        }
    }

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err();
        assert!(matches!(refused, OpenError::InUse { .. }));
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_is_read_is_kept_from_others_too() {
        let folder = tempfile::tempdir().unwrap();
        // The first lock makes the file, the second one finds it.
        for _ in 0..2 {
            let reader = FolderLock::take_to_read(folder.path()).unwrap().unwrap();
            for refused in [
                FolderLock::take(folder.path()),
                FolderLock::take_to_read(folder.path()).map(Option::unwrap),
            ] {
                assert!(matches!(refused, Err(OpenError::InUse { .. })));
            }
            drop(reader);
        }
        FolderLock::take(folder.path()).unwrap();
    }
}
