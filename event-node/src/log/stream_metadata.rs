//! Stream metadata: limits that hide events of a stream.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::log::stream_acl::StreamAcl;

/// Metadata key: maximum number of visible events, counted from the newest.
const MAX_COUNT: &str = "$maxCount";

/// Metadata key: maximum age of visible events in seconds.
const MAX_AGE: &str = "$maxAge";

/// Metadata key: first visible revision.
const TRUNCATE_BEFORE: &str = "$tb";

/// Metadata key: HTTP cache time of the stream in seconds.
const CACHE_CONTROL: &str = "$cacheControl";

/// Metadata key: whether the stream is temporary.
const TEMPORARY: &str = "$tmp";

/// Metadata key: access rights.
const ACL: &str = "$acl";

/// Maximum number of seconds: EventStoreDB counts them in 100 ns ticks.
const MAX_SECONDS: u64 = (i64::MAX / TICKS_PER_SECOND).cast_unsigned();

/// Byte order mark, accepted before the JSON text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The `$tb` value of a soft-deleted stream.
pub(super) const SOFT_DELETED: u64 = i64::MAX as u64;

pub(super) const TICKS_PER_SECOND: i64 = 10_000_000;

/// Limits in a stream's metadata that hide events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StreamLimits {
    pub max_count: Option<u64>,
    pub max_age_seconds: Option<u64>,
    pub truncate_before: u64,
}

impl StreamLimits {
    /// Limits of every metastream, whatever its own metadata says: only its newest event is
    /// visible.
    pub(super) const FOR_METASTREAMS: Self =
        Self { max_count: Some(1), max_age_seconds: None, truncate_before: 0 };

    /// Reads the limits from the newest event of a metastream, of any type. Data that is not
    /// declared as JSON, or with an invalid value for a known key, sets no limits.
    pub(super) fn from_metadata(is_json: bool, data: &[u8]) -> Self {
        if !is_json {
            return Self::default();
        }
        Self::from_object(&parse_object(data)).unwrap_or_default()
    }

    fn from_object(metadata: &Map<String, Value>) -> Result<Self, WrongValue> {
        let max_age = read_seconds(metadata, MAX_AGE)?;
        read_seconds(metadata, CACHE_CONTROL)?;
        // Keys without effect here are validated too: as in EventStoreDB, one invalid value voids
        // all limits.
        if !metadata.get(TEMPORARY).is_none_or(Value::is_boolean)
            || !metadata.get(ACL).is_none_or(is_acl)
        {
            return Err(WrongValue);
        }
        Ok(Self {
            // As in EventStoreDB, 0 and negative numbers set no limit.
            max_count: read_integer(metadata, MAX_COUNT)?.filter(|count| *count > 0),
            max_age_seconds: max_age.filter(|age| *age > 0),
            truncate_before: read_integer(metadata, TRUNCATE_BEFORE)?.unwrap_or(0),
        })
    }

    pub(super) fn is_soft_deleted(&self) -> bool {
        self.truncate_before == SOFT_DELETED
    }

    /// Returns the first visible revision of a stream with last revision `last`.
    pub(super) fn first_visible(&self, last: u64) -> u64 {
        let by_count = self.max_count.map_or(0, |count| (last + 1).saturating_sub(count));
        by_count.max(self.truncate_before)
    }

    /// Returns the creation time of the oldest visible event, in ticks.
    pub(super) fn oldest_ticks(&self, now_ticks: i64) -> i64 {
        let Some(seconds) = self.max_age_seconds else { return i64::MIN };
        let age = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(TICKS_PER_SECOND);
        now_ticks.saturating_sub(age)
    }

    /// Returns whether an event created at this time is too old to be visible.
    pub(super) fn hides_by_age(&self, created_ticks: i64, now_ticks: i64) -> bool {
        created_ticks < self.oldest_ticks(now_ticks)
    }
}

/// Returns `data` with `$tb` set to `revision`. Invalid metadata counts as empty.
pub(super) fn with_truncate_before(data: &[u8], revision: u64) -> Vec<u8> {
    let mut metadata = parse_object(data);
    metadata.insert(TRUNCATE_BEFORE.to_owned(), Value::from(revision));
    Value::Object(metadata).to_string().into_bytes()
}

/// Parses the JSON object at the start of `data`; returns an empty one if there is none.
pub(super) fn parse_object(data: &[u8]) -> Map<String, Value> {
    let data = data.strip_prefix(BYTE_ORDER_MARK).unwrap_or(data);
    // As in EventStoreDB, text after the object is ignored: the deserializer's `end` is not called.
    Map::deserialize(&mut serde_json::Deserializer::from_slice(data)).unwrap_or_default()
}

/// A known key has an invalid value.
struct WrongValue;

/// Returns the number at `key`; `None` if it is missing or negative.
fn read_integer(metadata: &Map<String, Value>, key: &str) -> Result<Option<u64>, WrongValue> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    Ok(u64::try_from(value.as_i64().ok_or(WrongValue)?).ok())
}

/// Like [`read_integer`], for a number of seconds.
fn read_seconds(metadata: &Map<String, Value>, key: &str) -> Result<Option<u64>, WrongValue> {
    let seconds = read_integer(metadata, key)?;
    if seconds.is_some_and(|seconds| seconds > MAX_SECONDS) {
        return Err(WrongValue);
    }
    Ok(seconds)
}

/// Returns whether the access control list is valid.
fn is_acl(value: &Value) -> bool {
    StreamAcl::from_value(value).is_some()
}

/// Returns the access control list of the newest event of a metastream. Metadata that sets no limits
/// because it is invalid has no list either.
pub(super) fn read_acl(is_json: bool, data: &[u8]) -> Option<StreamAcl> {
    let metadata = is_json.then(|| parse_object(data))?;
    StreamLimits::from_object(&metadata).ok()?;
    metadata.get(ACL).and_then(StreamAcl::from_value)
}

/// Returns the access control list as JSON, without checking it.
pub(super) fn raw_acl(data: &[u8]) -> Option<Value> {
    parse_object(data).remove(ACL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> StreamLimits {
        StreamLimits::from_metadata(true, json.as_bytes())
    }

    #[test]
    fn zero_values_and_non_objects_set_no_limits() {
        for json in [r#"{"$maxCount":0,"$maxAge":0,"$tb":-1}"#, "not json", "[1]", "5", "null", ""]
        {
            assert_eq!(limits(json), StreamLimits::default(), "{json}");
        }
        assert_eq!(
            StreamLimits::from_metadata(false, br#"{"$maxCount":1}"#),
            StreamLimits::default()
        );
    }

    #[test]
    fn one_invalid_known_value_voids_all_limits() {
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
                StreamLimits::default(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn unknown_keys_and_surrounding_text_are_ignored() {
        let one = StreamLimits { max_count: Some(1), ..StreamLimits::default() };
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
    fn invalid_metadata_has_no_access_control_list() {
        let acl = |json: &str| read_acl(true, json.as_bytes());
        assert!(acl(r#"{"$acl":{"$r":"ada"},"mine":1}"#).is_some());
        assert_eq!(acl(r#"{"$acl":{"$r":"ada"},"$tb":"x"}"#), None);
        assert_eq!(acl(r#"{"$acl":{"$r":5}}"#), None);
        assert_eq!(read_acl(false, br#"{"$acl":{"$r":"ada"}}"#), None);
    }

    #[test]
    fn first_visible_revision_obeys_both_limits() {
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
