//! What a stream's metadata says about which of its events are visible.

use serde_json::{Map, Value};

use crate::log::event::METADATA_TYPE;

/// Metadata key: no more than so many of the newest events are visible.
const MAX_COUNT: &str = "$maxCount";

/// Metadata key: events older than so many seconds are not visible.
const MAX_AGE: &str = "$maxAge";

/// Metadata key: events with a lower revision are not visible.
const TRUNCATE_BEFORE: &str = "$tb";

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
    /// Reads the limits from a metadata event. What cannot be read limits nothing.
    pub(super) fn of(event_type: &str, is_json: bool, data: &[u8]) -> Self {
        if event_type != METADATA_TYPE || !is_json {
            return Self::default();
        }
        let metadata = parse(data);
        let number = |key| {
            metadata
                .get(key)
                .and_then(Value::as_u64)
                .filter(|number| i64::try_from(*number).is_ok())
        };
        Self {
            max_count: number(MAX_COUNT).filter(|count| *count > 0),
            max_age_seconds: number(MAX_AGE).filter(|age| *age > 0),
            truncate_before: number(TRUNCATE_BEFORE).unwrap_or(0),
        }
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
pub(crate) fn with_truncate_before(data: &[u8], revision: u64) -> Vec<u8> {
    let mut metadata = parse(data);
    metadata.insert(TRUNCATE_BEFORE.to_owned(), Value::from(revision));
    Value::Object(metadata).to_string().into_bytes()
}

fn parse(data: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(data).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> Limits {
        Limits::of(METADATA_TYPE, true, json.as_bytes())
    }

    #[test]
    fn zero_and_wrong_types_limit_nothing() {
        assert_eq!(limits(r#"{"$maxCount":0,"$maxAge":"3","$tb":-1}"#), Limits::default());
        assert_eq!(limits("not json"), Limits::default());
        assert_eq!(limits("[1]"), Limits::default());
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
