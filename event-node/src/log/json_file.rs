//! Small files in JSON that are replaced as a whole.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

use crate::log::{chunk_writer::unfinished, disk::Folder};

/// Reads such a file; `None` if there is none that can be read.
pub(super) fn read_json<T: DeserializeOwned>(
    folder: &dyn Folder,
    name: &str,
) -> io::Result<Option<T>> {
    let Some(disk) = folder.open(name)? else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(disk.length()?).unwrap_or(0)];
    disk.read_exact_at(&mut bytes, 0)?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Makes `value` durable in place of what the file held.
pub(super) fn replace_json<T: Serialize>(
    folder: &dyn Folder,
    name: &str,
    value: &T,
) -> io::Result<()> {
    let disk = folder.create(&unfinished(name))?;
    disk.write_all_at(&serde_json::to_vec_pretty(value)?, 0)?;
    disk.sync()?;
    folder.rename(&unfinished(name), name)?;
    folder.sync()
}
