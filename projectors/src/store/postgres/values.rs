//! Values in the forms that PostgreSQL can hold.

use std::borrow::Cow;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Arguments, Row};
use uuid::Uuid;

use crate::projection::{Column, Kind, Record, Value};

/// Stands before characters that cannot be written as they are. It is of the private use area, so it
/// hardly ever has to be escaped itself.
const ESCAPE: char = '\u{E000}';
/// Behind [`ESCAPE`]: a character U+0000, which JSON strings may hold and `text` may not.
const NUL: char = '0';

/// The earliest time that PostgreSQL knows, in microseconds since 1970. The years between the first one
/// of a timestamp and this one are stored as this one.
const EARLIEST_MICROS: i64 = -210_866_803_200_000_000;

/// Returns values as the parameters of a statement.
pub(in crate::store) fn bind(values: Vec<Value>) -> sqlx::Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for value in values {
        match value {
            Value::Null(Kind::Id) => arguments.add(None::<Uuid>),
            Value::Null(Kind::Text | Kind::Document) => arguments.add(None::<String>),
            Value::Null(Kind::Number) => arguments.add(None::<i64>),
            Value::Null(Kind::Time) => arguments.add(None::<DateTime<Utc>>),
            Value::Id(id) => arguments.add(id),
            Value::Text(text) => arguments.add(escape_text(&text)),
            Value::Document(json) => arguments.add(json),
            Value::Number(number) => arguments.add(number),
            Value::Time(micros) => arguments.add(pg_time(micros)),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Reads a row that has these columns.
pub(in crate::store) fn read_record(row: &PgRow, columns: &[Column]) -> sqlx::Result<Record> {
    let read_value = |(index, column): (usize, &Column)| {
        let value = match column.kind {
            Kind::Id => row.try_get::<Option<_>, _>(index)?.map(Value::Id),
            Kind::Text => row.try_get::<Option<_>, _>(index)?.map(unescape_text).map(Value::Text),
            Kind::Number => row.try_get::<Option<_>, _>(index)?.map(Value::Number),
            Kind::Document => row.try_get::<Option<_>, _>(index)?.map(Value::Document),
            Kind::Time => {
                let time: Option<DateTime<Utc>> = row.try_get(index)?;
                time.map(|time| Value::Time(time.timestamp_micros()))
            }
        };
        Ok(value.unwrap_or(Value::Null(column.kind)))
    };
    columns.iter().enumerate().map(read_value).collect()
}

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
