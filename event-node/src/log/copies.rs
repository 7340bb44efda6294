//! Copies of a store: backups, what is restored from them, and what is salvaged of a damaged one.

mod backup;
mod manifest;
mod restore;
mod salvage;
mod stream;
mod writer;

use std::{io, path::PathBuf};

#[cfg(test)]
pub(super) use crate::log::copies::{backup::backup_log, restore::restore_folder};
pub use crate::log::copies::{
    backup::{BackedUp, backup, backup_to_stream},
    restore::{Restored, restore, restore_from_stream},
    salvage::{LostRange, LostRevisions, Salvaged, salvage},
};
use crate::log::error::{LogError, OpenError};

/// How far a copy has come, in bytes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedBytes {
    pub copied: u64,
    /// Bytes that the copy will have, as far as that is known.
    pub total: u64,
}

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("there is no store in {}: give the folder of a store", .folder.display())]
    Missing { folder: PathBuf },
    #[error("the store to copy cannot be opened")]
    Source(#[source] OpenError),
    #[error("the store to copy cannot be read")]
    Read(#[source] LogError),
    #[error("the copy in {} cannot be written: make room and give a folder that this user may write", .folder.display())]
    Write {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the stream cannot be written")]
    WriteStream(#[source] io::Error),
    #[error("the stream cannot be read")]
    ReadStream(#[source] io::Error),
    #[error("the stream is not a backup, or is damaged at byte {at}: take a new backup")]
    DamagedStream { at: u64 },
    #[error("the stream was cut off at byte {at}: a backup was not finished; take a new one")]
    CutOffStream { at: u64 },
    #[error(
        "the folder {} holds a backup of another store: give an empty folder, or the backup's own",
        .folder.display()
    )]
    OtherStore { folder: PathBuf },
    #[error(
        "the backup in {} is not complete: it ends at byte {end} and should at {wanted}; take a new \
         one, or `dofs node salvage` what is there",
        .folder.display()
    )]
    Incomplete { folder: PathBuf, end: u64, wanted: u64 },
    #[error(
        "the folder {} holds a store already: move it away, or give an empty folder",
        .folder.display()
    )]
    NotEmpty { folder: PathBuf },
    #[error("the data folder cannot be used")]
    Folder(#[source] OpenError),
    #[error(
        "the copy in {} is not what was copied: check the disk and take a new one",
        .folder.display()
    )]
    Unsound {
        folder: PathBuf,
        #[source]
        source: LogError,
    },
}
