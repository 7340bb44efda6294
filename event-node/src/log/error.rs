//! Why the log could not be opened, written or read.

use std::{io, path::PathBuf, sync::Arc};

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
    #[error("a thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

/// Why a read or a write did not happen. Shared, since one failed commit fails many writes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("the database failed")]
    Database(#[source] Arc<rusqlite::Error>),
    #[error("the store is stopping")]
    Closed,
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}
