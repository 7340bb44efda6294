//! Times and texts in the forms that PostgreSQL can hold.

use std::borrow::Cow;

use sqlx::types::chrono::{DateTime, Utc};

/// Stands before characters that cannot be written as they are. It is of the private use area, so it
/// hardly ever has to be escaped itself.
const ESCAPE: char = '\u{E000}';
/// Behind [`ESCAPE`]: a character U+0000, which JSON strings may hold and `text` may not.
const NUL: char = '0';

/// The earliest time that PostgreSQL knows, in microseconds since 1970. The years between the first one
/// of a timestamp and this one are stored as this one.
const EARLIEST_MICROS: i64 = -210_866_803_200_000_000;

/// Returns a time, in microseconds since 1970, as a `timestamptz` holds it.
pub(super) fn pg_time(micros: i64) -> DateTime<Utc> {
    // Chrono's range is wider than that of our timestamps.
    DateTime::from_timestamp_micros(micros.max(EARLIEST_MICROS)).unwrap_or_default()
}

/// Returns the text as a `text` column can hold it. [`unescape_text`] restores it.
pub(super) fn escape_text(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + ESCAPE.len_utf8());
    for character in text.chars() {
        match character {
            '\0' => escaped.extend([ESCAPE, NUL]),
            ESCAPE => escaped.extend([ESCAPE, ESCAPE]),
            other => escaped.push(other),
        }
    }
    escaped.into()
}

/// Restores a text that was escaped by [`escape_text`].
pub(super) fn unescape_text(text: String) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_contains_no_nul_and_is_restored() {
        for text in ["", "cust-1", "a\0b", "\0\0", "\u{E000}", "\u{E000}0", "0\u{E000}\0"] {
            let escaped = escape_text(text).into_owned();
            assert!(!escaped.contains('\0'), "{text:?}");
            assert_eq!(unescape_text(escaped), text);
        }
    }
}
