//! Why the log could not be opened, written or read.

use std::{io, path::PathBuf, sync::Arc};

use crate::log::{disk::Folder, sorted_table::TableError};

/// Why the store in a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data folder {} cannot be created: give a folder that this user may write", .folder.display())]
    CreateFolder {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the lock file {} cannot be opened: give a data folder that this user may write", .file.display())]
    LockFile {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the data folder {} is in use by another process: stop it or give another folder",
        .folder.display()
    )]
    InUse { folder: PathBuf },
    #[error("the log {} cannot be made: give a data folder that this user may write", .file.display())]
    CreateLog {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the log {} cannot be read: give a data folder that this user may read and write", .file.display())]
    UnreadableLog {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the log {} is damaged at byte {offset}, and with it events that were acknowledged: \
         restore the data folder from a backup, or save what is whole with `dofs node salvage`",
        .file.display()
    )]
    DamagedLog { file: PathBuf, offset: u64 },
    #[error(
        "the log {} is damaged: it ends at byte {length} and had {known}: restore the data folder \
         from a backup, or save what is whole with `dofs node salvage`",
        .file.display()
    )]
    CutOffLog { file: PathBuf, length: u64, known: u64 },
    #[error(
        "the file {} belongs to another store: put the files of one store into a folder of their own",
        .file.display()
    )]
    ForeignChunk { file: PathBuf },
    #[error(
        "events.log in {} is missing or empty, and other files of a store are there: restore the data \
         folder from a backup, or begin an empty store in its place with --allow-empty",
        .folder.display()
    )]
    MissingLog { folder: PathBuf },
    #[error(
        "the store {} has an earlier format: export it with the version that wrote it, and import \
         it into an empty folder",
        .file.display()
    )]
    FirstFormat { file: PathBuf },
    #[error("the store in {} cannot be opened", .folder.display())]
    Log {
        folder: PathBuf,
        #[source]
        source: LogError,
    },
    #[error("the index in {} cannot be made", .folder.display())]
    Index {
        folder: PathBuf,
        #[source]
        source: LogError,
    },
    #[error("the index {} cannot be read: give a data folder that this user may read and write", .file.display())]
    UnreadableIndex {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the unused file {} of the index cannot be removed: remove it", .file.display())]
    RemoveIndex {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

impl OpenError {
    /// A file of the index that cannot be read for another reason than damage.
    pub(super) fn index_file(folder: &dyn Folder, file: &str, source: io::Error) -> Self {
        Self::UnreadableIndex { file: folder.path().join(file), source }
    }
}

/// Why a read or a write did not happen. Shared, since one failed commit fails many writes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error(
        "the index is damaged again right after it was made anew: look at the disk and the memory \
         of this machine"
    )]
    DamagedIndex,
    #[error("the disk failed")]
    Disk(#[source] Arc<io::Error>),
    #[error(
        "the log is damaged at byte {offset}: stop the node, let `dofs node verify` look at all of \
         it, and restore the data folder from a backup or save what is whole with `dofs node salvage`"
    )]
    Damaged { offset: u64 },
    #[error("the disk or the quota of the data folder is full: make room, then try again")]
    Full,
    #[error(
        "the disk failed, and the log cannot be cut back to what is durable: look at the disk; the \
         next append tries it again"
    )]
    Unsure(#[source] Arc<io::Error>),
    #[error("the store is stopping")]
    Closed,
}

impl LogError {
    /// What a failed call of the operating system means.
    pub(super) fn disk(error: io::Error) -> Self {
        let full =
            [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
        if full.contains(&error.kind()) { Self::Full } else { Self::Disk(Arc::new(error)) }
    }
}

impl From<TableError> for LogError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Damaged => Self::DamagedIndex,
            TableError::Io(error) => Self::disk(error),
        }
    }
}
