//! Chunks: the files that make up the log.
//!
//! Entries are appended to the last chunk. Earlier chunks never change, except that a scavenge
//! replaces one by a compacted copy. Offsets count through the whole log: an entry keeps its offset
//! when entries before it are removed.
//!
//! ```text
//! events.log            "dofslog1"  store: 16 bytes  CRC-32: u32  4 zeros  entry*
//! events-<start>.log    "dofslog2"  store: 16 bytes  start: u64  end: u64  entries end: u64
//!                       12 zeros  CRC-32: u32  entry*
//! compacted             the same header, entries and gaps  landmarks
//! landmarks             count: u32  (offset: u64  file offset: u64)*  CRC-32: u32
//! ```
//!
//! `end` is 0 in a chunk that is not compacted; it ends at the end of its file. A compacted chunk
//! has a sparse index: one landmark every few KiB maps a log offset to a file offset.

use std::{io, sync::Arc};

use uuid::Uuid;

use crate::log::{
    codec::Decoder,
    disk::{Disk, Folder},
    error::OpenError,
};

/// File name of the first chunk, whose header defines the store id.
pub(super) const FIRST_CHUNK: &str = "events.log";

/// Chunk size in bytes after which the next chunk is created. A scavenge needs the same amount of
/// free disk space to replace a chunk.
pub(super) const CHUNK_BYTES: u64 = 64 * 1_024 * 1_024;

/// Length of the first chunk's header.
pub(super) const FIRST_HEADER_BYTES: usize = 32;

/// Length of the header of later and of compacted chunks.
const HEADER_BYTES: usize = 64;

/// File offset of the first entry in a compacted chunk.
pub(super) const COMPACTED_ENTRIES_AT: u64 = HEADER_BYTES as u64;

/// Log offset of the first entry.
pub(super) const FIRST_ENTRY: u64 = FIRST_HEADER_BYTES as u64;

const FIRST_FORMAT: [u8; 8] = *b"dofslog1";
const FORMAT: [u8; 8] = *b"dofslog2";

/// Offsets of the header checksums.
const FIRST_SUM_AT: usize = 24;
const SUM_AT: usize = HEADER_BYTES - 4;

/// Approximate distance of two landmarks in bytes.
pub(super) const LANDMARK_STRIDE: u64 = 4 * 1_024;

const LANDMARK_BYTES: u64 = 16;

/// Entry of a compacted chunk's sparse index: maps a log offset to a file offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Landmark {
    pub offset: u64,
    pub file_offset: u64,
}

/// How entries are laid out in a chunk's file.
#[derive(Debug)]
enum Layout {
    /// All entries that were appended.
    Whole,
    /// The remaining entries, with gaps in place of removed ones.
    Compacted { end: u64, entries_end: u64, landmarks: Vec<Landmark> },
}

#[derive(Debug)]
pub(super) struct Chunk {
    name: String,
    store: Uuid,
    start: u64,
    header_bytes: u64,
    disk: Arc<dyn Disk>,
    layout: Layout,
}

/// Returns the file name of the chunk that starts at offset `start`.
pub(super) fn chunk_name(start: u64) -> String {
    if start == FIRST_ENTRY { FIRST_CHUNK.to_owned() } else { format!("events-{start:020}.log") }
}

/// Returns the start offset encoded in a chunk's file name; `None` if `name` is not a chunk's.
pub(super) fn parse_chunk_name(name: &str) -> Option<u64> {
    if name == FIRST_CHUNK {
        return Some(FIRST_ENTRY);
    }
    let start = name.strip_prefix("events-")?.strip_suffix(".log")?;
    let start = start.parse().ok()?;
    // Accept only the spelling of `chunk_name`. `events-7.log` would be a second file for the
    // offset of `events-00000000000000000007.log`.
    (chunk_name(start) == name).then_some(start)
}

/// Returns the index of the chunk that contains `offset`; `None` before the first chunk.
pub(super) fn chunk_index_at(chunks: &[Arc<Chunk>], offset: u64) -> Option<usize> {
    chunks.partition_point(|chunk| chunk.start_offset() <= offset).checked_sub(1)
}

pub(super) fn encode_first_header(store: Uuid) -> Vec<u8> {
    let mut header = vec![0; FIRST_HEADER_BYTES];
    header[..8].copy_from_slice(&FIRST_FORMAT);
    header[8..FIRST_SUM_AT].copy_from_slice(store.as_bytes());
    let sum = crc32fast::hash(&header[..FIRST_SUM_AT]);
    header[FIRST_SUM_AT..FIRST_SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Encodes the header of a later chunk. `end` and `entries_end` are 0 unless it is compacted.
pub(super) fn encode_header(store: Uuid, start: u64, end: u64, entries_end: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend(FORMAT);
    header.extend(store.as_bytes());
    for number in [start, end, entries_end] {
        header.extend(number.to_le_bytes());
    }
    header.resize(SUM_AT, 0);
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}

/// Encodes the landmarks stored after the entries of a compacted chunk.
pub(super) fn encode_landmarks(landmarks: &[Landmark]) -> Vec<u8> {
    // A chunk has about 16,000 landmarks, far below the maximum of a `u32`.
    let count = u32::try_from(landmarks.len()).unwrap_or(u32::MAX);
    let mut bytes = count.to_le_bytes().to_vec();
    for landmark in landmarks {
        bytes.extend(landmark.offset.to_le_bytes());
        bytes.extend(landmark.file_offset.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Result of opening a chunk file.
#[derive(Debug)]
pub(super) enum OpenedChunk {
    Chunk(Chunk),
    /// The header was never completely written, so the chunk has no entries.
    Unfinished,
}

impl Chunk {
    /// Opens the chunk file `name`; `None` if the file does not exist.
    pub(super) fn open(folder: &dyn Folder, name: &str) -> Result<Option<OpenedChunk>, OpenError> {
        let file = folder.path().join(name);
        let unreadable = |source| OpenError::UnreadableLog { file: file.clone(), source };
        let Some(disk) = folder.open_file(name).map_err(unreadable)? else { return Ok(None) };
        let opened = Self::from_disk(&disk, name).map_err(unreadable)?;
        opened.map(Some).ok_or(OpenError::DamagedLog { file, offset: 0 })
    }

    /// Reads the header and the landmarks; `None` if they are damaged.
    fn from_disk(disk: &Arc<dyn Disk>, name: &str) -> io::Result<Option<OpenedChunk>> {
        let Some(start) = parse_chunk_name(name) else { return Ok(None) };
        let is_first = start == FIRST_ENTRY;
        let least = if is_first { FIRST_HEADER_BYTES } else { HEADER_BYTES };
        let length = disk.byte_length()?;
        let bytes = read_header_bytes(disk.as_ref())?;
        let chunk = |store, header_bytes: usize, layout| {
            let (name, disk) = (name.to_owned(), Arc::clone(disk));
            let header_bytes = header_bytes as u64;
            Some(OpenedChunk::Chunk(Self { name, store, start, header_bytes, disk, layout }))
        };
        // A compacted first chunk has the long header, so the first chunk may have either kind.
        if is_first && let Some(store) = decode_first_header(&bytes) {
            return Ok(chunk(store, FIRST_HEADER_BYTES, Layout::Whole));
        }
        // A header with another start is that of a file under the wrong name. Its entries would be
        // read at wrong offsets.
        let Some(header) = Header::decode(&bytes).filter(|header| header.start == start) else {
            // After a power loss a file can have its full length but only zeros: its size was
            // written back before its data.
            let is_unfinished = length <= least as u64
                && (bytes.len() < least || bytes.iter().all(|byte| *byte == 0));
            return Ok(is_unfinished.then_some(OpenedChunk::Unfinished));
        };
        if header.end == 0 {
            return Ok(chunk(header.store, HEADER_BYTES, Layout::Whole));
        }
        let landmarks = read_landmarks(disk.as_ref(), header.entries_end, length)?;
        let Header { store, end, entries_end, .. } = header;
        Ok(landmarks.and_then(|landmarks| {
            chunk(store, HEADER_BYTES, Layout::Compacted { end, entries_end, landmarks })
        }))
    }

    pub(super) fn create_first(folder: &dyn Folder, store: Uuid) -> io::Result<Self> {
        Self::create_whole(folder, FIRST_ENTRY, store, &encode_first_header(store))
    }

    /// Creates an empty chunk that starts at offset `start`.
    pub(super) fn create_next(folder: &dyn Folder, store: Uuid, start: u64) -> io::Result<Self> {
        Self::create_whole(folder, start, store, &encode_header(store, start, 0, 0))
    }

    fn create_whole(
        folder: &dyn Folder,
        start: u64,
        store: Uuid,
        header: &[u8],
    ) -> io::Result<Self> {
        let name = chunk_name(start);
        let disk = folder.create_file(&name)?;
        disk.write_all_at(header, 0)?;
        disk.sync_bytes()?;
        // The file's name must be durable before an entry in it is acknowledged. Otherwise a power
        // loss removes the file with the entry.
        folder.sync_names()?;
        let header_bytes = header.len() as u64;
        Ok(Self { name, store, start, header_bytes, disk, layout: Layout::Whole })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the id of the store to which the chunk belongs.
    pub(super) fn store_id(&self) -> Uuid {
        self.store
    }

    /// Returns the log offset of the chunk's first entry.
    pub(super) fn start_offset(&self) -> u64 {
        self.start
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(super) fn is_compacted(&self) -> bool {
        matches!(self.layout, Layout::Compacted { .. })
    }

    /// Returns the log offset at which the next chunk starts, derived from this chunk's file.
    pub(super) fn end_offset(&self) -> io::Result<u64> {
        match self.layout {
            Layout::Whole => {
                Ok(self.start + self.disk.byte_length()?.saturating_sub(self.header_bytes))
            }
            Layout::Compacted { end, .. } => Ok(end),
        }
    }

    /// Returns the file offset after the chunk's last entry. `log_end` is the end of the log or the
    /// start of the next chunk.
    pub(super) fn entries_end(&self, log_end: u64) -> u64 {
        match self.layout {
            Layout::Whole => self.file_offset(log_end),
            Layout::Compacted { entries_end, .. } => entries_end,
        }
    }

    /// Returns the file offset of a log offset. Valid only for chunks that are not compacted.
    pub(super) fn file_offset(&self, offset: u64) -> u64 {
        self.header_bytes + offset.saturating_sub(self.start)
    }

    /// Returns a landmark at or before `offset`, which must lie within the chunk.
    pub(super) fn landmark_before(&self, offset: u64) -> Landmark {
        match &self.layout {
            Layout::Whole => Landmark { offset, file_offset: self.file_offset(offset) },
            Layout::Compacted { landmarks, .. } => {
                let after = landmarks.partition_point(|landmark| landmark.offset <= offset);
                // An offset in a gap before the first remaining entry has no landmark before it.
                let first = Landmark { offset: self.start, file_offset: self.header_bytes };
                after.checked_sub(1).and_then(|last| landmarks.get(last)).copied().unwrap_or(first)
            }
        }
    }
}

pub(super) fn decode_first_header(bytes: &[u8]) -> Option<Uuid> {
    let bytes = bytes.get(..FIRST_HEADER_BYTES)?;
    let store = Uuid::from_slice(&bytes[8..FIRST_SUM_AT]).ok()?;
    (bytes == encode_first_header(store)).then_some(store)
}

/// Reads the store id from a chunk's header; `None` if the header is damaged.
pub(super) fn read_store_id(disk: &dyn Disk) -> io::Result<Option<Uuid>> {
    let bytes = read_header_bytes(disk)?;
    let first = decode_first_header(&bytes);
    Ok(first.or_else(|| Header::decode(&bytes).map(|header| header.store)))
}

/// Returns the range of file offsets that may contain entries, even if the header is damaged.
pub(super) fn find_entry_bounds(disk: &dyn Disk) -> io::Result<(u64, u64)> {
    let bytes = read_header_bytes(disk)?;
    let length = disk.byte_length()?;
    Ok(match Header::decode(&bytes) {
        Some(Header { end: 1.., entries_end, .. }) => {
            // A damaged file may be shorter than its header says.
            (HEADER_BYTES as u64, entries_end.min(length))
        }
        Some(_) => (HEADER_BYTES as u64, length),
        // The first chunk, or a damaged header: start after the shorter kind of header. The rest of
        // a longer one is skipped as damage.
        None => (FIRST_ENTRY, length),
    })
}

fn read_header_bytes(disk: &dyn Disk) -> io::Result<Vec<u8>> {
    let length = usize::try_from(disk.byte_length()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; HEADER_BYTES.min(length)];
    disk.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

struct Header {
    store: Uuid,
    start: u64,
    end: u64,
    entries_end: u64,
}

impl Header {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let mut rest = Decoder(&bytes[FORMAT.len()..]);
        let store = Uuid::from_bytes(rest.read_array()?);
        let (start, end, entries_end) = (rest.read_u64()?, rest.read_u64()?, rest.read_u64()?);
        let is_whole = bytes == encode_header(store, start, end, entries_end);
        is_whole.then_some(Self { store, start, end, entries_end })
    }
}

fn read_landmarks(disk: &dyn Disk, from: u64, length: u64) -> io::Result<Option<Vec<Landmark>>> {
    // Count and checksum take 4 bytes each. A larger size than one landmark per stride is damage,
    // and must not be allocated.
    let possible = 8..=(from / LANDMARK_STRIDE + 1) * LANDMARK_BYTES + 8;
    let Some(bytes) = length.checked_sub(from).filter(|bytes| possible.contains(bytes)) else {
        return Ok(None);
    };
    let mut encoded = vec![0; usize::try_from(bytes).unwrap_or(0)];
    disk.read_exact_at(&mut encoded, from)?;
    let (body, sum) = encoded.split_at(encoded.len() - 4);
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Ok(None);
    }
    let mut rest = Decoder(&body[4..]);
    let mut landmarks = Vec::new();
    while let (Some(offset), Some(file_offset)) = (rest.read_u64(), rest.read_u64()) {
        landmarks.push(Landmark { offset, file_offset });
    }
    Ok(Some(landmarks))
}
