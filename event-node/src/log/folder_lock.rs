//! Keeps a second process out of a data folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
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
        std::fs::create_dir_all(folder)
            .map_err(|source| OpenError::CreateFolder { folder: folder.to_owned(), source })?;
        let path = folder.join(LOCK_FILE);
        let unusable = |source| OpenError::LockFile { file: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err();
        assert!(matches!(refused, OpenError::InUse { .. }));
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }
}
