//! Damage in the middle of the write-ahead log, which the database takes for its end.
//!
//! Recovery stops at the first frame whose checksum is wrong and forgets all that follows. After a
//! power cut that is right: the last transaction was not whole and was never answered. But the log
//! is synced before the next transaction is begun, so whole transactions behind a broken frame say
//! that what was answered is gone.
//!
//! The format: <https://www.sqlite.org/walformat.html>.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use crate::log::{error::OpenError, schema::LOG_FILE};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The first word of the log; its last bit says that checksums take words as big-endian.
const MAGIC: u32 = 0x377f_0682;

const MAX_PAGE_BYTES: u32 = 65_536;

/// Two running sums over pairs of words.
type Checksum = (u32, u32);

/// What a frame is checked with.
struct Format {
    is_big_endian: bool,
    salt: [u8; 8],
}

/// Opening the database would cut its log off at the first broken frame: look before.
pub(super) fn refuse_broken_log(folder: &Path) -> Result<(), OpenError> {
    let file = folder.join(LOG_FILE);
    match is_broken_inside(&file) {
        Ok(false) => Ok(()),
        Ok(true) => Err(OpenError::BrokenLog { file }),
        Err(source) => Err(OpenError::UnreadableLog { file, source }),
    }
}

/// Whether the log has whole transactions behind a broken frame. No log has none.
fn is_broken_inside(file: &Path) -> io::Result<bool> {
    match File::open(file) {
        Ok(file) => scan(BufReader::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn scan(mut log: impl Read) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut log, &mut header)? {
        return Ok(false);
    }
    let (magic, page_bytes) = (word(&header, 0), word(&header, 8));
    let mut salt = [0; 8];
    salt.copy_from_slice(&header[16..24]);
    let format = Format { is_big_endian: magic & 1 == 1, salt };
    let mut before = format.sum((0, 0), &header[..24]);
    let is_header_sound = magic & !1 == MAGIC
        && page_bytes <= MAX_PAGE_BYTES
        && before == (word(&header, 24), word(&header, 28));
    if !is_header_sound {
        // It is synced before the first frame is written.
        return fill(&mut log, &mut [0]);
    }
    let mut is_broken = false;
    let mut whole_behind_break = 0;
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    while fill(&mut log, &mut frame)? {
        let stored = (word(&frame, 16), word(&frame, 20));
        // Each sum goes on from the one that the frame before says it has: so frames behind a
        // broken one can be told from what an earlier round of the log left there.
        let is_sound = format.is_of_this_round(&frame) && format.sum_of(before, &frame) == stored;
        if is_sound && is_broken {
            whole_behind_break += u32::from(is_commit(&frame));
        }
        is_broken |= !is_sound;
        before = stored;
        // One commit may end the transaction that was cut off; a second was begun after its sync.
        if whole_behind_break > 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Format {
    fn is_of_this_round(&self, frame: &[u8]) -> bool {
        frame[8..16] == self.salt
    }

    fn sum_of(&self, before: Checksum, frame: &[u8]) -> Checksum {
        self.sum(self.sum(before, &frame[..8]), &frame[FRAME_HEADER_BYTES..])
    }

    fn sum(&self, (mut first, mut second): Checksum, bytes: &[u8]) -> Checksum {
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(self.word(pair, 0)).wrapping_add(second);
            second = second.wrapping_add(self.word(pair, 4)).wrapping_add(first);
        }
        (first, second)
    }

    fn word(&self, bytes: &[u8], at: usize) -> u32 {
        let word = word(bytes, at);
        if self.is_big_endian { word } else { word.swap_bytes() }
    }
}

/// The last frame of a transaction says how large the database is then.
fn is_commit(frame: &[u8]) -> bool {
    word(frame, 4) != 0
}

/// A big-endian word; 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u32::from_be_bytes(*word))
}

/// `false` if there is not so much left.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::Range};

    use super::*;
    use crate::log::schema::open_writer;

    /// The log of a store after some transactions, none of which is in the database.
    fn log() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let store = open_writer(folder.path()).unwrap();
        for number in 0..10 {
            let name = format!("order-{number}");
            store.execute("INSERT INTO streams (name) VALUES (?)", [name]).unwrap();
        }
        fs::read(folder.path().join("events.sqlite-wal")).unwrap()
    }

    fn damaged(range: impl FnOnce(usize) -> Range<usize>) -> bool {
        let mut log = log();
        let range = range(log.len());
        log[range].fill(0xa5);
        scan(log.as_slice()).unwrap()
    }

    #[test]
    fn a_sound_log_and_one_that_was_cut_off_are_no_damage() {
        let log = log();
        for len in (0..log.len()).step_by(501).chain([log.len()]) {
            assert!(!scan(&log[..len]).unwrap(), "cut off at {len}");
        }
    }

    #[test]
    fn a_broken_frame_with_transactions_behind_it_is_damage() {
        assert!(damaged(|len| len / 2..len / 2 + 1));
        assert!(damaged(|_| HEADER_BYTES + 100..HEADER_BYTES + 101));
        assert!(damaged(|_| 0..4), "the header");
    }

    #[test]
    fn a_broken_last_transaction_is_what_a_power_cut_leaves() {
        assert!(!damaged(|len| len - 100..len));
    }

    #[test]
    fn what_an_earlier_round_left_behind_is_no_damage() {
        let mut log = log();
        let frame = log.len() - 4_096 - FRAME_HEADER_BYTES;
        let earlier = log[HEADER_BYTES..frame].to_vec();
        log.extend(earlier.iter().map(|byte| byte ^ 0x55));
        assert!(!scan(log.as_slice()).unwrap());
    }
}
