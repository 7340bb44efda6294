//! Why the log could not be opened, written or read.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::ErrorCode;

use crate::log::schema::DATABASE_FILE;

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
    #[error("the database in {} cannot be opened", .folder.display())]
    Database {
        folder: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error(
        "the database {} is damaged: restore the data folder from a backup",
        .file.display()
    )]
    Damaged {
        file: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error(
        "the newest events in the database {} do not follow one another: restore the data folder \
         from a backup",
        .file.display()
    )]
    BrokenTail { file: PathBuf },
    #[error(
        "the write-ahead log {} is damaged before its end, and with it events that were \
         acknowledged: restore the data folder from a backup; or move this file away, which gives \
         up the newest events",
        .file.display()
    )]
    BrokenLog { file: PathBuf },
    #[error("the write-ahead log {} cannot be read", .file.display())]
    UnreadableLog {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

impl OpenError {
    /// What an error of the database means at the start.
    pub(super) fn database(folder: &Path, source: rusqlite::Error) -> Self {
        if is_damage(&source) {
            return Self::Damaged { file: folder.join(DATABASE_FILE), source };
        }
        Self::Database { folder: folder.to_owned(), source }
    }
}

/// Whether the file is not what was written to it.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Why a read or a write did not happen. Shared, since one failed commit fails many writes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("the database failed")]
    Database(#[source] Arc<rusqlite::Error>),
    #[error("the disk or the quota of the data folder is full: make room, then try again")]
    Full,
    #[error("the store is stopping")]
    Closed,
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            return Self::Full;
        }
        Self::Database(Arc::new(error))
    }
}
