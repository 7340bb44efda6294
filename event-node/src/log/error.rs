//! Why the log could not be opened, written or read.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::ErrorCode;

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
         restore the data folder from a backup",
        .file.display()
    )]
    DamagedLog { file: PathBuf, offset: u64 },
    #[error(
        "the log {} is damaged: it ends at byte {length} and had {known}: restore the data folder \
         from a backup",
        .file.display()
    )]
    CutOffLog { file: PathBuf, length: u64, known: u64 },
    #[error(
        "the log in {} is gone, and its index is there: restore the data folder from a backup",
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
    #[error("the index in {} cannot be opened", .folder.display())]
    Index {
        folder: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the damaged index {} cannot be removed: remove it, and it is made anew", .file.display())]
    RemoveIndex {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

impl OpenError {
    pub(super) fn index(folder: &Path, source: rusqlite::Error) -> Self {
        Self::Index { folder: folder.to_owned(), source }
    }
}

/// Why a read or a write did not happen. Shared, since one failed commit fails many writes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("the index of the store failed")]
    Index(#[source] Arc<rusqlite::Error>),
    #[error("the disk failed")]
    Disk(#[source] Arc<io::Error>),
    #[error(
        "the log is damaged at byte {offset}: stop the node, let `dofs node verify` look at all of \
         it, and restore the data folder from a backup"
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

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            return Self::Full;
        }
        Self::Index(Arc::new(error))
    }
}
