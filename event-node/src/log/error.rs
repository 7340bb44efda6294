//! Errors of opening, writing and reading the log.

use std::{io, path::PathBuf, sync::Arc};

use crate::log::{disk::Folder, sorted_table::TableError};

/// Reason why the store in a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data folder {} cannot be created; choose a folder that this user can write", .folder.display())]
    CreateFolder { folder: PathBuf, source: io::Error },
    #[error("the lock file {} cannot be opened; choose a data folder that this user can write", .file.display())]
    LockFile { file: PathBuf, source: io::Error },
    #[error(
        "the data folder {} is in use by another process: stop that process or choose another folder",
        .folder.display()
    )]
    InUse { folder: PathBuf },
    #[error("the log {} cannot be created; choose a data folder that this user can write", .file.display())]
    CreateLog { file: PathBuf, source: io::Error },
    #[error("the log {} cannot be read; choose a data folder that this user can read and write", .file.display())]
    UnreadableLog { file: PathBuf, source: io::Error },
    #[error(
        "the log {} is damaged at byte {offset}, and acknowledged events are lost: restore the data \
         folder from a backup, or save intact events with `dofs node salvage`",
        .file.display()
    )]
    DamagedLog { file: PathBuf, offset: u64 },
    #[error(
        "the log {} is damaged: it ends at byte {length} instead of byte {known}; restore the data \
         folder from a backup, or save intact events with `dofs node salvage`",
        .file.display()
    )]
    TruncatedLog { file: PathBuf, length: u64, known: u64 },
    #[error(
        "the file {} belongs to another store: keep the files of each store in a separate folder",
        .file.display()
    )]
    ForeignChunk { file: PathBuf },
    #[error(
        "events.log in {} is missing or empty, and other files of a store are there: restore the data \
         folder from a backup, or replace the store by an empty one with --allow-empty",
        .folder.display()
    )]
    MissingLog { folder: PathBuf },
    #[error(
        "the store {} has an earlier format: export it with the version of dofs that wrote it, and \
         import it into an empty folder",
        .file.display()
    )]
    FirstFormat { file: PathBuf },
    #[error("the store in {} cannot be opened", .folder.display())]
    Log { folder: PathBuf, source: LogError },
    #[error("the index in {} cannot be created", .folder.display())]
    Index { folder: PathBuf, source: LogError },
    #[error("the index {} cannot be read; choose a data folder that this user can read and write", .file.display())]
    UnreadableIndex { file: PathBuf, source: io::Error },
    #[error("the unused index file {} cannot be removed; remove it", .file.display())]
    RemoveIndex { file: PathBuf, source: io::Error },
    #[error("a thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

impl OpenError {
    /// Returns the error of an index file that cannot be read for another reason than damage.
    pub(super) fn index_file(folder: &dyn Folder, file: &str, source: io::Error) -> Self {
        Self::UnreadableIndex { file: folder.path().join(file), source }
    }
}

/// Reason why a read or write failed. Cloneable, because one failed commit fails many writes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error(
        "the index is damaged again right after it was rebuilt: check disk and memory of this \
         machine"
    )]
    DamagedIndex,
    #[error("the disk failed")]
    Disk(#[source] Arc<io::Error>),
    #[error(
        "the log is damaged at byte {offset}: stop the node, check the whole store with `dofs node \
         verify`, and restore it from a backup or save intact events with `dofs node salvage`"
    )]
    Damaged { offset: u64 },
    #[error("the disk or the quota of the data folder is full: free space, then retry")]
    Full,
    #[error(
        "the disk failed, and a torn write at the end of the log cannot be truncated: check the \
         disk; the next append retries"
    )]
    TornWrite(#[source] Arc<io::Error>),
    #[error("the store is stopping")]
    Closed,
}

impl LogError {
    /// Classifies an I/O error.
    pub(super) fn from_io(error: io::Error) -> Self {
        let full =
            [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
        if full.contains(&error.kind()) { Self::Full } else { Self::Disk(Arc::new(error)) }
    }
}

impl From<TableError> for LogError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Damaged => Self::DamagedIndex,
            TableError::Io(error) => Self::from_io(error),
        }
    }
}
