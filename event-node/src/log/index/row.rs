//! Encoding of index rows as keys and values.
//!
//! ```text
//! mark   = 'm'  position: u64            -> offset
//! run    = 's'  stream  0xff  first: u64 -> count  position  offset
//! limits = 's'  stream  0xff  8 x 0xff   -> flags: u8  [maximum count]  [maximum age]  truncate before
//! ```
//!
//! Numbers in keys are big-endian, so that keys sort numerically; numbers in values are varints.
//! 0xff does not occur in UTF-8: all rows of a stream are adjacent, and its limits come after its
//! runs.

use crate::log::{
    codec::{Decoder, put_varint},
    memtable::{Mark, Run},
    sorted_table::FilterHash,
    stream_metadata::StreamLimits,
};

const MARK: u8 = b'm';
const STREAM: u8 = b's';

/// Terminator of a stream name.
const END_OF_NAME: u8 = 0xff;

/// Length of a key after the stream name.
const AFTER_NAME_BYTES: usize = 9;

const LIMITS_KEY: [u8; 8] = [0xff; 8];

const HAS_MAX_COUNT: u8 = 1;
const HAS_MAX_AGE: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Row<'a> {
    Mark(Mark),
    Run { stream: &'a str, run: Run },
    Limits { stream: &'a str, limits: StreamLimits },
}

pub(super) fn mark_key(position: u64) -> Vec<u8> {
    let mut key = vec![MARK];
    key.extend(position.to_be_bytes());
    key
}

/// Returns a key greater than the keys of all marks.
pub(super) fn key_after_marks() -> Vec<u8> {
    vec![MARK + 1]
}

/// Returns the key of the run of `stream` that starts at revision `first`.
pub(super) fn run_key(stream: &str, first: u64) -> Vec<u8> {
    stream_key(stream, first.to_be_bytes())
}

/// Returns the key of the limits of `stream`, the greatest key of the stream.
pub(super) fn limits_key(stream: &str) -> Vec<u8> {
    stream_key(stream, LIMITS_KEY)
}

fn stream_key(stream: &str, rest: [u8; 8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + stream.len() + AFTER_NAME_BYTES);
    key.push(STREAM);
    key.extend(stream.as_bytes());
    key.push(END_OF_NAME);
    key.extend(rest);
    key
}

/// Returns the stream name in a key; `None` if the row belongs to no stream.
pub(super) fn parse_stream_name(key: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = key.split_first()?;
    let name = rest.get(..rest.len().checked_sub(AFTER_NAME_BYTES)?)?;
    (*kind == STREAM).then_some(name)
}

pub(super) fn is_limits(key: &[u8]) -> bool {
    parse_stream_name(key).is_some() && key.ends_with(&LIMITS_KEY)
}

/// Returns the filter hash of a stream's limits, derived from the hash of the stream. A separate
/// hash lets lookups skip tables that have rows of the stream but no limits, which are most tables.
pub(in crate::log) fn limits_hash(stream: FilterHash) -> FilterHash {
    stream.secondary()
}

impl<'a> Row<'a> {
    /// Decodes a row; `None` if key or value is invalid.
    pub(super) fn decode(key: &'a [u8], value: &[u8]) -> Option<Self> {
        let mut rest = Decoder(key);
        let [kind] = rest.read_array()?;
        let mut value = Decoder(value);
        let row = match kind {
            MARK => {
                let position = u64::from_be_bytes(rest.read_array()?);
                Self::Mark(Mark { position, offset: value.read_varint()? })
            }
            STREAM => {
                let stream = std::str::from_utf8(parse_stream_name(key)?).ok()?;
                rest.read_raw(stream.len())?;
                if rest.read_array()? != [END_OF_NAME] {
                    return None;
                }
                match rest.read_array()? {
                    LIMITS_KEY => Self::Limits { stream, limits: decode_limits(&mut value)? },
                    first => Self::Run { stream, run: decode_run(first, &mut value)? },
                }
            }
            _ => return None,
        };
        (rest.is_empty() && value.is_empty()).then_some(row)
    }

    pub(super) fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let mut value = Vec::new();
        let key = match self {
            Self::Mark(mark) => {
                put_varint(&mut value, mark.offset);
                mark_key(mark.position)
            }
            Self::Run { stream, run } => {
                for number in [run.count, run.position, run.offset] {
                    put_varint(&mut value, number);
                }
                run_key(stream, run.first)
            }
            Self::Limits { stream, limits } => {
                encode_limits(&mut value, limits);
                limits_key(stream)
            }
        };
        (key, value)
    }
}

fn decode_run(first: [u8; 8], value: &mut Decoder<'_>) -> Option<Run> {
    let first = u64::from_be_bytes(first);
    let (count, position, offset) =
        (value.read_varint()?, value.read_varint()?, value.read_varint()?);
    // `Run::last_revision` must not overflow.
    first.checked_add(count)?;
    Some(Run { first, count, position, offset })
}

fn decode_limits(value: &mut Decoder<'_>) -> Option<StreamLimits> {
    let [flags] = value.read_array()?;
    let mut optional =
        |flag| if flags & flag == 0 { Some(None) } else { value.read_varint().map(Some) };
    let (max_count, max_age_seconds) = (optional(HAS_MAX_COUNT)?, optional(HAS_MAX_AGE)?);
    Some(StreamLimits { max_count, max_age_seconds, truncate_before: value.read_varint()? })
}

fn encode_limits(value: &mut Vec<u8>, limits: &StreamLimits) {
    let flag = |number: Option<u64>, flag| if number.is_some() { flag } else { 0 };
    value.push(flag(limits.max_count, HAS_MAX_COUNT) | flag(limits.max_age_seconds, HAS_MAX_AGE));
    let numbers = [limits.max_count, limits.max_age_seconds, Some(limits.truncate_before)];
    numbers.into_iter().flatten().for_each(|number| put_varint(value, number));
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn encoded_rows_are_decoded_back(
            stream: String,
            numbers: [u32; 4],
            max_count in option::of(any::<u64>()),
            max_age_seconds in option::of(any::<u64>()),
        ) {
            let [first, count, position, offset] = numbers.map(u64::from);
            let limits = StreamLimits { max_count, max_age_seconds, truncate_before: offset };
            for row in [
                Row::Mark(Mark { position, offset }),
                Row::Run { stream: &stream, run: Run { first, count, position, offset } },
                Row::Limits { stream: &stream, limits },
            ] {
                let (key, mut value) = row.encode();
                prop_assert_eq!(Row::decode(&key, &value), Some(row));
                value.push(0);
                prop_assert_eq!(Row::decode(&key, &value), None);
            }
        }

        #[test]
        fn arbitrary_rows_never_panic_the_decoder(key: Vec<u8>, value: Vec<u8>) {
            let _row = Row::decode(&key, &value);
        }
    }

    #[test]
    fn rows_of_a_stream_are_adjacent_with_limits_last() {
        let mut keys = [run_key("a", 0), run_key("a", 256), limits_key("a"), run_key("ab", 1)];
        keys.sort();
        assert_eq!(keys[0], run_key("ab", 1));
        assert_eq!(keys[1..], [run_key("a", 0), run_key("a", 256), limits_key("a")]);
        assert_eq!(keys.map(|key| is_limits(&key)), [false, false, false, true]);
        assert!(key_after_marks() > mark_key(u64::MAX) && key_after_marks() < run_key("", 0));
    }
}
