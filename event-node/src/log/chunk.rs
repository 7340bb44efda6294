//! A chunk: one file of the log.
//!
//! The log is a row of files. Entries are appended to the last one; the others never change, except
//! that a scavenge replaces one by a compacted copy. Offsets are those of the whole log: an entry
//! keeps its offset when entries before it are removed.
//!
//! ```text
//! events.log            "dofslog1"  store: 16 bytes  CRC-32: u32  4 zeros  entry*
//! events-<start>.log    "dofslog2"  store: 16 bytes  start: u64  end: u64  entries end: u64
//!                       12 zeros  CRC-32: u32  entry*
//! compacted             the same header, entries and gaps  landmarks
//! landmarks             count: u32  (offset: u64  place in the file: u64)*  CRC-32: u32
//! ```
//!
//! `end` is 0 for a chunk that is not compacted: it ends where the file does. In a compacted one, a
//! landmark every few KiB says which offset is at which place of the file.

use std::{io, sync::Arc};

use uuid::Uuid;

use crate::log::{
    disk::{Disk, Folder},
    error::OpenError,
};

/// File name of the first chunk. The store's id is the one in it.
pub(super) const FIRST_CHUNK: &str = "events.log";

/// Size at which the next chunk is begun, in bytes. A scavenge needs as much room while it replaces
/// one chunk by another.
pub(super) const CHUNK_BYTES: u64 = 64 * 1_024 * 1_024;

/// Bytes before the first entry of the first chunk.
pub(super) const FIRST_HEADER_BYTES: usize = 32;

/// Bytes before the first entry of the other chunks, and of compacted ones.
const HEADER_BYTES: usize = 64;

/// Place of the first entry in the file of a compacted chunk.
pub(super) const COMPACTED_ENTRIES_AT: u64 = HEADER_BYTES as u64;

/// Offset of the log's first entry.
pub(super) const FIRST_ENTRY: u64 = FIRST_HEADER_BYTES as u64;

const FIRST_FORMAT: [u8; 8] = *b"dofslog1";
const FORMAT: [u8; 8] = *b"dofslog2";

/// Where the sums of the headers are.
const FIRST_SUM_AT: usize = 24;
const SUM_AT: usize = HEADER_BYTES - 4;

/// Bytes of a compacted chunk between two landmarks, about.
pub(super) const LANDMARK_STRIDE: u64 = 4 * 1_024;

const LANDMARK_BYTES: u64 = 16;

/// Where an entry is: its offset in the log, and its place in the chunk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Landmark {
    pub offset: u64,
    pub place: u64,
}

/// What is in a chunk's file.
#[derive(Debug)]
enum Layout {
    /// Every entry that was appended.
    Whole,
    /// Those that are left, and gaps.
    Compacted { end: u64, entries_end: u64, landmarks: Vec<Landmark> },
}

/// A chunk that is open.
#[derive(Debug)]
pub(super) struct Chunk {
    name: String,
    store: Uuid,
    start: u64,
    header_bytes: u64,
    disk: Arc<dyn Disk>,
    layout: Layout,
}

/// File name of the chunk that begins at this offset.
pub(super) fn chunk_name(start: u64) -> String {
    if start == FIRST_ENTRY { FIRST_CHUNK.to_owned() } else { format!("events-{start:020}.log") }
}

/// The offset at which the chunk of this name begins, if it is the name of one.
pub(super) fn start_of(name: &str) -> Option<u64> {
    if name == FIRST_CHUNK {
        return Some(FIRST_ENTRY);
    }
    let start = name.strip_prefix("events-")?.strip_suffix(".log")?;
    let start = start.parse().ok()?;
    (chunk_name(start) == name).then_some(start)
}

/// The header of the first chunk of a new store.
pub(super) fn first_header(store: Uuid) -> Vec<u8> {
    let mut header = vec![0; FIRST_HEADER_BYTES];
    header[..8].copy_from_slice(&FIRST_FORMAT);
    header[8..FIRST_SUM_AT].copy_from_slice(store.as_bytes());
    let sum = crc32fast::hash(&header[..FIRST_SUM_AT]);
    header[FIRST_SUM_AT..FIRST_SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The header of another chunk; `end` and `entries_end` are 0 unless it is compacted.
pub(super) fn header(store: Uuid, start: u64, end: u64, entries_end: u64) -> Vec<u8> {
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

/// The landmarks as they stand behind the entries of a compacted chunk.
pub(super) fn encode_landmarks(landmarks: &[Landmark]) -> Vec<u8> {
    let count = u32::try_from(landmarks.len()).unwrap_or(u32::MAX);
    let mut bytes = count.to_le_bytes().to_vec();
    for landmark in landmarks {
        bytes.extend(landmark.offset.to_le_bytes());
        bytes.extend(landmark.place.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// What became of opening a chunk.
#[derive(Debug)]
pub(super) enum Opened {
    Chunk(Chunk),
    /// Its header was never finished, so it holds nothing.
    Unfinished,
}

impl Chunk {
    /// Opens a chunk; `None` if there is no file of that name.
    pub(super) fn open(folder: &dyn Folder, name: &str) -> Result<Option<Opened>, OpenError> {
        let file = folder.path().join(name);
        let unreadable = |source| OpenError::UnreadableLog { file: file.clone(), source };
        let Some(disk) = folder.open(name).map_err(unreadable)? else { return Ok(None) };
        let opened = Self::on(&disk, name).map_err(unreadable)?;
        opened.map(Some).ok_or(OpenError::DamagedLog { file, offset: 0 })
    }

    /// Reads the header, and landmarks behind the entries; `None` if they are damaged.
    fn on(disk: &Arc<dyn Disk>, name: &str) -> io::Result<Option<Opened>> {
        let Some(start) = start_of(name) else { return Ok(None) };
        let is_first = start == FIRST_ENTRY;
        let least = if is_first { FIRST_HEADER_BYTES } else { HEADER_BYTES };
        let length = disk.length()?;
        let bytes = read_header_bytes(disk.as_ref())?;
        let chunk = |store, header_bytes: usize, layout| {
            let (name, disk) = (name.to_owned(), Arc::clone(disk));
            let header_bytes = header_bytes as u64;
            Some(Opened::Chunk(Self { name, store, start, header_bytes, disk, layout }))
        };
        if is_first && let Some(store) = read_first_header(&bytes) {
            return Ok(chunk(store, FIRST_HEADER_BYTES, Layout::Whole));
        }
        let Some(header) = Header::read(&bytes).filter(|header| header.start == start) else {
            // The length of the file can be durable before its bytes are.
            let is_unfinished = length <= least as u64
                && (bytes.len() < least || bytes.iter().all(|byte| *byte == 0));
            return Ok(is_unfinished.then_some(Opened::Unfinished));
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

    /// The first chunk of a new store.
    pub(super) fn create_first(folder: &dyn Folder, store: Uuid) -> io::Result<Self> {
        Self::create(folder, FIRST_ENTRY, store, &first_header(store))
    }

    /// Another chunk, empty.
    pub(super) fn create_next(folder: &dyn Folder, store: Uuid, start: u64) -> io::Result<Self> {
        Self::create(folder, start, store, &header(store, start, 0, 0))
    }

    fn create(folder: &dyn Folder, start: u64, store: Uuid, header: &[u8]) -> io::Result<Self> {
        let name = chunk_name(start);
        let disk = folder.create(&name)?;
        disk.write_all_at(header, 0)?;
        disk.sync()?;
        // The name of the file has to be durable too, before anything in it is acknowledged.
        folder.sync()?;
        let header_bytes = header.len() as u64;
        Ok(Self { name, store, start, header_bytes, disk, layout: Layout::Whole })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The id of the store that the chunk belongs to.
    pub(super) fn store(&self) -> Uuid {
        self.store
    }

    /// Offset of its first entry.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(super) fn is_compacted(&self) -> bool {
        matches!(self.layout, Layout::Compacted { .. })
    }

    /// Offset at which the next chunk begins, as the file says.
    pub(super) fn end(&self) -> io::Result<u64> {
        match self.layout {
            Layout::Whole => Ok(self.start + self.disk.length()?.saturating_sub(self.header_bytes)),
            Layout::Compacted { end, .. } => Ok(end),
        }
    }

    /// Place in the file behind its last entry, for a log that ends at `log_end`, or in the chunk
    /// that begins there.
    pub(super) fn entries_end(&self, log_end: u64) -> u64 {
        match self.layout {
            Layout::Whole => self.place(log_end),
            Layout::Compacted { entries_end, .. } => entries_end,
        }
    }

    /// Place in the file of an offset, of a chunk that is not compacted.
    pub(super) fn place(&self, offset: u64) -> u64 {
        self.header_bytes + offset.saturating_sub(self.start)
    }

    /// An entry at or before `offset`, which is inside of the chunk.
    pub(super) fn landmark_before(&self, offset: u64) -> Landmark {
        match &self.layout {
            Layout::Whole => Landmark { offset, place: self.place(offset) },
            Layout::Compacted { landmarks, .. } => {
                let behind = landmarks.partition_point(|landmark| landmark.offset <= offset);
                let first = Landmark { offset: self.start, place: self.header_bytes };
                behind.checked_sub(1).and_then(|last| landmarks.get(last)).copied().unwrap_or(first)
            }
        }
    }
}

pub(super) fn read_first_header(bytes: &[u8]) -> Option<Uuid> {
    let bytes = bytes.get(..FIRST_HEADER_BYTES)?;
    let store = Uuid::from_slice(&bytes[8..FIRST_SUM_AT]).ok()?;
    (bytes == first_header(store)).then_some(store)
}

/// The id of the store in a header, if that is whole.
pub(super) fn read_store(disk: &dyn Disk) -> io::Result<Option<Uuid>> {
    let bytes = read_header_bytes(disk)?;
    let first = read_first_header(&bytes);
    Ok(first.or_else(|| Header::read(&bytes).map(|header| header.store)))
}

/// Places in a file between which entries may be, be the header whole or not.
pub(super) fn entries_bounds(disk: &dyn Disk) -> io::Result<(u64, u64)> {
    let bytes = read_header_bytes(disk)?;
    let length = disk.length()?;
    Ok(match Header::read(&bytes) {
        Some(Header { end: 1.., entries_end, .. }) => {
            (HEADER_BYTES as u64, entries_end.min(length))
        }
        Some(_) => (HEADER_BYTES as u64, length),
        // The shorter header: what the longer one has more is skipped as damage.
        None => (FIRST_ENTRY, length),
    })
}

fn read_header_bytes(disk: &dyn Disk) -> io::Result<Vec<u8>> {
    let length = usize::try_from(disk.length()?).unwrap_or(usize::MAX);
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
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let store = Uuid::from_slice(&bytes[8..24]).ok()?;
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (start, end, entries_end) = (number(24)?, number(32)?, number(40)?);
        let is_whole = bytes == header(store, start, end, entries_end);
        is_whole.then_some(Self { store, start, end, entries_end })
    }
}

fn read_landmarks(disk: &dyn Disk, from: u64, length: u64) -> io::Result<Option<Vec<Landmark>>> {
    // The count and the sum are 4 bytes each, and there is one landmark for each stride.
    let possible = 8..=(from / LANDMARK_STRIDE + 1) * LANDMARK_BYTES + 8;
    let Some(bytes) = length.checked_sub(from).filter(|bytes| possible.contains(bytes)) else {
        return Ok(None);
    };
    let mut held = vec![0; usize::try_from(bytes).unwrap_or(0)];
    disk.read_exact_at(&mut held, from)?;
    let (body, sum) = held.split_at(held.len() - 4);
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Ok(None);
    }
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let pairs = body[4..].chunks_exact(16);
    Ok(Some(
        pairs
            .map(|pair| Landmark { offset: number(&pair[..8]), place: number(&pair[8..]) })
            .collect(),
    ))
}
