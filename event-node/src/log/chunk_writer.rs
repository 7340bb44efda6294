//! Writes compacted chunks: remaining entries, and gaps in place of removed ones.

use std::{io, sync::Arc};

use uuid::Uuid;

use crate::log::{
    chunk::{
        COMPACTED_ENTRIES_AT, LANDMARK_STRIDE, Landmark, chunk_name, encode_header,
        encode_landmarks,
    },
    disk::{Disk, Folder},
    entry::{Encoder, Entry},
};

/// Number of encoded bytes written to the file at once.
const WRITE_BYTES: usize = 256 * 1_024;

/// A compacted chunk under construction, in a temporary file beside the chunk that it replaces.
#[derive(Debug)]
pub(super) struct ChunkWriter {
    folder: Arc<dyn Folder>,
    disk: Arc<dyn Disk>,
    name: String,
    store: Uuid,
    start: u64,
    /// Log offset after the last entry or gap.
    offset: u64,
    /// File offset of the next write.
    file_offset: u64,
    encoder: Encoder,
    landmarks: Vec<Landmark>,
}

impl ChunkWriter {
    /// Creates the temporary file of the chunk that starts at log offset `start`.
    pub(super) fn create(folder: &Arc<dyn Folder>, store: Uuid, start: u64) -> io::Result<Self> {
        let name = chunk_name(start);
        Ok(Self {
            disk: folder.create_file(&temporary_name(&name))?,
            folder: Arc::clone(folder),
            name,
            store,
            start,
            offset: start,
            file_offset: COMPACTED_ENTRIES_AT,
            encoder: Encoder::default(),
            landmarks: Vec::new(),
        })
    }

    /// Appends the entry at log offset `offset`, preceded by a gap if it does not follow the
    /// previous entry.
    pub(super) fn append_entry(&mut self, offset: u64, entry: &Entry<'_>) -> io::Result<()> {
        self.encoder.fill_gap(&mut self.offset, offset);
        // Strides count file bytes, not log bytes: a lookup then reads one stride, however much was
        // removed.
        let file_offset = self.file_offset + self.encoder.bytes().len() as u64;
        let is_due = self
            .landmarks
            .last()
            .is_none_or(|last| last.file_offset + LANDMARK_STRIDE <= file_offset);
        if is_due {
            self.landmarks.push(Landmark { offset, file_offset });
        }
        // The copy keeps the `durable` field, which still proves that the log before it was synced.
        self.encoder.add_copy(entry);
        self.offset = offset + entry.length() as u64;
        if self.encoder.bytes().len() >= WRITE_BYTES { self.write_encoded() } else { Ok(()) }
    }

    /// Completes the chunk, which ends at log offset `end`, and replaces the file of its name
    /// durably.
    pub(super) fn finish(mut self, end: u64) -> io::Result<()> {
        self.encoder.fill_gap(&mut self.offset, end);
        self.write_encoded()?;
        self.disk.write_all_at(&encode_landmarks(&self.landmarks), self.file_offset)?;
        // The header is last, since it contains the end of the entries.
        self.disk.write_all_at(&encode_header(self.store, self.start, end, self.file_offset), 0)?;
        // The content is made durable before the rename. In the other order, a power loss could
        // leave an incomplete file under the chunk's name.
        self.disk.sync_bytes()?;
        self.folder.rename_file(&temporary_name(&self.name), &self.name)?;
        // Until the folder is synced, a power loss can bring the old file back.
        self.folder.sync_names()
    }

    pub(super) fn discard(self) -> io::Result<()> {
        self.folder.remove_file(&temporary_name(&self.name))
    }

    fn write_encoded(&mut self) -> io::Result<()> {
        self.disk.write_all_at(self.encoder.bytes(), self.file_offset)?;
        self.file_offset += self.encoder.bytes().len() as u64;
        self.encoder.clear();
        Ok(())
    }
}

/// Returns the name that a file has until it is complete.
pub(super) fn temporary_name(name: &str) -> String {
    format!("{name}.new")
}
