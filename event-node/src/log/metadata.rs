//! What a stream's metadata says about which of its events are visible.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Metadata key: no more than so many of the newest events are visible.
const MAX_COUNT: &str = "$maxCount";

/// Metadata key: events older than so many seconds are not visible.
const MAX_AGE: &str = "$maxAge";

/// Metadata key: events with a lower revision are not visible.
const TRUNCATE_BEFORE: &str = "$tb";

/// Metadata key: how long readers over HTTP may cache the stream, in seconds.
const CACHE_CONTROL: &str = "$cacheControl";

/// Metadata key: whether the stream is temporary.
const TEMPORARY: &str = "$tmp";

/// Metadata key: who may do what with the stream.
const ACL: &str = "$acl";

/// The keys inside of [`ACL`]: to read, write and delete, and to read and write metadata.
const RIGHTS: [&str; 5] = ["$r", "$w", "$d", "$mr", "$mw"];

/// Most seconds that a key may have: the original counts them in 100 ns ticks.
const MAX_SECONDS: u64 = (i64::MAX / TICKS_PER_SECOND).cast_unsigned();

/// What may stand in front of JSON.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The `$tb` of a soft-deleted stream.
pub(super) const SOFT_DELETED: u64 = i64::MAX as u64;

/// 100 ns ticks in a second.
pub(super) const TICKS_PER_SECOND: i64 = 10_000_000;

/// Which events of a stream its metadata hides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub max_count: Option<u64>,
    pub max_age_seconds: Option<u64>,
    pub truncate_before: u64,
}

impl Limits {
    /// The limits of every metastream, whatever its own metadata says: its newest event is shown.
    pub(super) const OF_METASTREAMS: Self =
        Self { max_count: Some(1), max_age_seconds: None, truncate_before: 0 };

    /// Reads the limits from the newest event of a metastream, of whatever type. Data that is not
    /// called JSON, or has one of the store's keys with a wrong value, limits nothing.
    pub(super) fn of(is_json: bool, data: &[u8]) -> Self {
        if !is_json {
            return Self::default();
        }
        Self::within(&parse(data)).unwrap_or_default()
    }

    fn within(metadata: &Map<String, Value>) -> Result<Self, WrongValue> {
        let max_age = seconds(metadata, MAX_AGE)?;
        seconds(metadata, CACHE_CONTROL)?;
        if !metadata.get(TEMPORARY).is_none_or(Value::is_boolean)
            || !metadata.get(ACL).is_none_or(is_acl)
        {
            return Err(WrongValue);
        }
        Ok(Self {
            max_count: integer(metadata, MAX_COUNT)?.filter(|count| *count > 0),
            max_age_seconds: max_age.filter(|age| *age > 0),
            truncate_before: integer(metadata, TRUNCATE_BEFORE)?.unwrap_or(0),
        })
    }

    pub(super) fn is_soft_deleted(&self) -> bool {
        self.truncate_before == SOFT_DELETED
    }

    /// The lowest revision that is visible in a stream whose last revision is `last`.
    pub(super) fn first_visible(&self, last: u64) -> u64 {
        let by_count = self.max_count.map_or(0, |count| (last + 1).saturating_sub(count));
        by_count.max(self.truncate_before)
    }

    /// The oldest visible time at `now_ticks`, in ticks.
    pub(super) fn oldest_ticks(&self, now_ticks: i64) -> i64 {
        let Some(seconds) = self.max_age_seconds else { return i64::MIN };
        let age = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(TICKS_PER_SECOND);
        now_ticks.saturating_sub(age)
    }

    /// Whether an event of this time is old enough to be hidden.
    pub(super) fn hides_by_age(&self, created_ticks: i64, now_ticks: i64) -> bool {
        created_ticks < self.oldest_ticks(now_ticks)
    }
}

/// `data` with `$tb` set to `revision`; unreadable metadata counts as empty.
pub(super) fn with_truncate_before(data: &[u8], revision: u64) -> Vec<u8> {
    let mut metadata = parse(data);
    metadata.insert(TRUNCATE_BEFORE.to_owned(), Value::from(revision));
    Value::Object(metadata).to_string().into_bytes()
}

/// The object that the data begins with; an empty one if it begins with none.
fn parse(data: &[u8]) -> Map<String, Value> {
    let data = data.strip_prefix(BYTE_ORDER_MARK).unwrap_or(data);
    Map::deserialize(&mut serde_json::Deserializer::from_slice(data)).unwrap_or_default()
}

/// One of the store's keys has a value that it cannot have.
struct WrongValue;

/// The number at `key`; `None` if there is none or it is negative.
fn integer(metadata: &Map<String, Value>, key: &str) -> Result<Option<u64>, WrongValue> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    Ok(u64::try_from(value.as_i64().ok_or(WrongValue)?).ok())
}

/// Like [`integer`], for a time.
fn seconds(metadata: &Map<String, Value>, key: &str) -> Result<Option<u64>, WrongValue> {
    let seconds = integer(metadata, key)?;
    if seconds.is_some_and(|seconds| seconds > MAX_SECONDS) {
        return Err(WrongValue);
    }
    Ok(seconds)
}

/// Whether rights are given as the original writes them: each to a role or to several.
fn is_acl(value: &Value) -> bool {
    let is_roles = |roles: &Value| {
        let are_roles = |roles: &Vec<Value>| roles.iter().all(Value::is_string);
        roles.is_string() || roles.as_array().is_some_and(are_roles)
    };
    value.as_object().is_some_and(|acl| {
        acl.iter().all(|(right, roles)| RIGHTS.contains(&right.as_str()) && is_roles(roles))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> Limits {
        Limits::of(true, json.as_bytes())
    }

    #[test]
    fn zero_and_what_is_no_object_limit_nothing() {
        for json in [r#"{"$maxCount":0,"$maxAge":0,"$tb":-1}"#, "not json", "[1]", "5", "null", ""]
        {
            assert_eq!(limits(json), Limits::default(), "{json}");
        }
        assert_eq!(Limits::of(false, br#"{"$maxCount":1}"#), Limits::default());
    }

    #[test]
    fn one_wrong_value_of_a_known_key_voids_all() {
        for wrong in [
            r#""$maxAge":"3""#,
            r#""$maxAge":1.0"#,
            r#""$maxAge":null"#,
            r#""$maxAge":9223372036854775807"#,
            r#""$tb":9223372036854775808"#,
            r#""$cacheControl":true"#,
            r#""$tmp":0"#,
            r#""$acl":5"#,
            r#""$acl":{"$r":5}"#,
            r#""$acl":{"$w":["a",5]}"#,
            r#""$acl":{"mine":"a"}"#,
        ] {
            assert_eq!(
                limits(&format!(r#"{{"$maxCount":1,{wrong}}}"#)),
                Limits::default(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn other_keys_negative_numbers_and_what_surrounds_the_object_do_no_harm() {
        let one = Limits { max_count: Some(1), ..Limits::default() };
        for json in [
            r#"{"mine":{"$maxCount":"x"},"$maxCount":1}"#,
            r#"{"$maxCount":1,"$tb":-1,"$maxAge":-5,"$cacheControl":-1,"$tmp":true}"#,
            r#"{"$maxCount":1,"$acl":{"$r":"$admins","$w":["a","b"],"$d":[]}}"#,
            r#"{"$maxCount":9,"$maxCount":1}"#,
            "\u{feff}{\"$maxCount\":1}",
            r#"{"$maxCount":1} and more"#,
        ] {
            assert_eq!(limits(json), one, "{json}");
        }
    }

    #[test]
    fn the_first_visible_revision_is_the_highest_of_both_limits() {
        let both = limits(r#"{"$maxCount":3,"$tb":2}"#);
        assert_eq!(both.first_visible(9), 7);
        assert_eq!(both.first_visible(3), 2);
        assert_eq!(both.first_visible(0), 2);
    }

    #[test]
    fn age_is_counted_in_seconds() {
        assert_eq!(limits(r#"{"$maxAge":2}"#).oldest_ticks(50_000_000), 30_000_000);
    }

    #[test]
    fn truncation_keeps_the_other_keys() {
        let kept = with_truncate_before(br#"{"owner":"x","$tb":9223372036854775807}"#, 4);
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!(kept, serde_json::json!({"owner": "x", "$tb": 4}));
    }
}
