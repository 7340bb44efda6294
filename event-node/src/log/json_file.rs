//! Small JSON files that are replaced atomically.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

use crate::log::{chunk_writer::temporary_name, disk::Folder};

/// Reads a JSON file; `None` if it is missing or invalid.
pub(super) fn read_json<T: DeserializeOwned>(
    folder: &dyn Folder,
    name: &str,
) -> io::Result<Option<T>> {
    let Some(disk) = folder.open_file(name)? else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(disk.byte_length()?).unwrap_or(0)];
    disk.read_exact_at(&mut bytes, 0)?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Replaces the file's content durably and atomically.
pub(super) fn replace_json<T: Serialize>(
    folder: &dyn Folder,
    name: &str,
    value: &T,
) -> io::Result<()> {
    let disk = folder.create_file(&temporary_name(name))?;
    disk.write_all_at(&serde_json::to_vec_pretty(value)?, 0)?;
    // Sync before the rename. A crash then leaves the old or the new content, never an incomplete
    // file.
    disk.sync_bytes()?;
    folder.rename_file(&temporary_name(name), name)?;
    folder.sync_names()
}
