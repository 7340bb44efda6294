//! Copies of a store: backup, restore, and salvage of a damaged store.

mod backup;
mod backup_stream;
mod log_writer;
mod restore;
mod salvage;

use std::{io, path::PathBuf};

use crate::log::error::{LogError, OpenError};
#[cfg(test)]
pub(super) use crate::log::store_copy::{backup::backup_log, restore::restore_folder};
pub use crate::log::store_copy::{
    backup::{BackupSummary, backup_store, backup_to_stream},
    restore::{RestoreSummary, restore_from_stream, restore_store},
    salvage::{LostRange, LostRevisions, SalvageSummary, salvage_store},
};

/// Progress of a copy, in bytes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedBytes {
    pub copied: u64,
    /// Expected total size of the copy.
    pub total: u64,
}

/// Reason why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("there is no store in {}: specify the data folder of a store", .folder.display())]
    Missing { folder: PathBuf },
    #[error("the store to copy cannot be opened")]
    Source(#[source] OpenError),
    #[error("the store to copy cannot be read")]
    Read(#[source] LogError),
    #[error("the copy in {} cannot be written; free space and choose a folder that this user can write", .folder.display())]
    Write { folder: PathBuf, source: io::Error },
    #[error("the stream cannot be written")]
    WriteStream(#[source] io::Error),
    #[error("the stream cannot be read")]
    ReadStream(#[source] io::Error),
    #[error("the stream is not a backup, or it is damaged at byte {at}: take a new backup")]
    DamagedStream { at: u64 },
    #[error("the stream is truncated at byte {at}: the backup was interrupted; take a new one")]
    TruncatedStream { at: u64 },
    #[error(
        "the folder {} holds a backup of another store: choose an empty folder, or the backup folder \
         of this store",
        .folder.display()
    )]
    OtherStore { folder: PathBuf },
    #[error(
        "the backup in {} is incomplete: it ends at byte {end} instead of byte {wanted}; take a new \
         one, or save intact events with `dofs node salvage`",
        .folder.display()
    )]
    Incomplete { folder: PathBuf, end: u64, wanted: u64 },
    #[error(
        "the folder {} holds a store already: move it away, or choose an empty folder",
        .folder.display()
    )]
    NotEmpty { folder: PathBuf },
    #[error("the data folder cannot be used")]
    Folder(#[source] OpenError),
    #[error(
        "the copy in {} differs from the source: check the disk and take a new one",
        .folder.display()
    )]
    Unsound { folder: PathBuf, source: LogError },
}
