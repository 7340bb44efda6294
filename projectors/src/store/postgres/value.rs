//! Times and texts as PostgreSQL can hold them.

use jiff::Timestamp;
use sqlx::types::chrono::{DateTime, Utc};

use crate::store::record::{FailedOrderRecord, OrderRecord, Time};

/// Stands before what cannot be written as it is. Of the private use area, so that it hardly ever
/// has to be escaped itself.
const ESCAPE: char = '\u{E000}';
/// Behind [`ESCAPE`], a character U+0000, which JSON strings may hold and `text` may not.
const NUL: char = '0';

/// The earliest time that PostgreSQL knows, in microseconds since 1970: the years from there to the
/// first that we can represent are one and the same to it.
const EARLIEST_MICROS: i64 = -210_866_803_200_000_000;

pub(super) type PgTime = DateTime<Utc>;

impl Time for PgTime {
    fn of(time: Timestamp) -> Self {
        // Chrono's range is the wider one.
        Self::from_timestamp_micros(time.as_microsecond().max(EARLIEST_MICROS)).unwrap_or_default()
    }

    fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self.timestamp_micros()).ok()
    }
}

/// The text as a `text` column can hold it. Every text has one such form and reads back equal.
pub(super) fn escaped(text: String) -> String {
    if !text.contains(['\0', ESCAPE]) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + ESCAPE.len_utf8());
    for character in text.chars() {
        match character {
            '\0' => escaped.extend([ESCAPE, NUL]),
            ESCAPE => escaped.extend([ESCAPE, ESCAPE]),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The text that was [`escaped`].
pub(super) fn unescaped(text: String) -> String {
    if !text.contains(ESCAPE) {
        return text;
    }
    let mut original = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let after = if character == ESCAPE { characters.next() } else { None };
        original.push(if after == Some(NUL) { '\0' } else { character });
    }
    original
}

impl<T> OrderRecord<T> {
    /// The record with `change` made to every text that others wrote.
    pub(super) fn map_text(self, change: fn(String) -> String) -> Self {
        Self {
            customer_id: change(self.customer_id),
            failure_code: self.failure_code.map(change),
            failure_reason: self.failure_reason.map(change),
            reference: self.reference.map(change),
            ..self
        }
    }
}

impl<T> FailedOrderRecord<T> {
    /// The record with `change` made to every text that others wrote.
    pub(super) fn map_text(self, change: fn(String) -> String) -> Self {
        Self { code: change(self.code), reason: change(self.reason), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_can_be_held_and_reads_back_equal() {
        for text in ["", "cust-1", "a\0b", "\0\0", "\u{E000}", "\u{E000}0", "0\u{E000}\0"] {
            let held = escaped(text.to_owned());
            assert!(!held.contains('\0'), "{text:?}");
            assert_eq!(unescaped(held), text);
        }
    }
}
