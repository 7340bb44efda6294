//! Times and ages as users write them in queries, bodies and flags.

use std::fmt;
use std::str::FromStr;

use jiff::civil::date;
use jiff::fmt::temporal::{DateTimeParser, PiecesOffset};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

/// Maximum age, in seconds: a hundred years of 365 days.
const MAX_AGE_SECONDS: u64 = 100 * 365 * 86_400;

/// Units of an age and their seconds, the largest first.
const UNITS: [(char, i64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A length of time before now, e.g. `15m`, `36h`, `1d 12h`, `1w`, or a number of seconds. Days have
/// 24 hours, and weeks have 7 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AgeForm")]
pub struct Age {
    /// At least zero and at most [`MAX_AGE_SECONDS`].
    duration: SignedDuration,
}

/// A text that is not a valid age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid age `{0}`, expected a duration of at most 100 years, e.g. `15m`, `36h`, `2d` or a \
     number of seconds"
)]
pub struct AgeError(String);

/// The JSON forms of an [`Age`].
#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid age, expected a text like `15m` or a number of seconds")]
enum AgeForm {
    Text(String),
    Seconds(u64),
}

impl Age {
    /// Returns the time that is this long before `now`; the earliest timestamp if it would be earlier.
    pub fn before(self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.duration).unwrap_or(Timestamp::MIN)
    }
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let span = if is_number { format!("{text}s").parse::<Span>() } else { text.parse() };
        let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
        let max = SignedDuration::from_secs(MAX_AGE_SECONDS.cast_signed());
        let duration = duration.ok().filter(|age| (SignedDuration::ZERO..=max).contains(age));
        duration.map(|duration| Self { duration }).ok_or_else(|| AgeError(text.to_owned()))
    }
}

impl TryFrom<AgeForm> for Age {
    type Error = AgeError;

    fn try_from(form: AgeForm) -> Result<Self, AgeError> {
        match form {
            AgeForm::Text(text) => text.parse(),
            AgeForm::Seconds(seconds) => seconds.to_string().parse(),
        }
    }
}

/// Displays the age in the largest unit of which it is a whole number, e.g. `36h`: the form that the API's
/// document describes.
impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = self.duration.as_secs();
        let is_whole = |(_, seconds): &(char, i64)| age >= *seconds && age % seconds == 0;
        let (unit, seconds) = UNITS.into_iter().find(is_whole).unwrap_or(('s', 1));
        write!(f, "{}{unit}", age / seconds)
    }
}

impl Serialize for Age {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Returns the schema of an optional age: one schema with both forms, because a union of two schemas
/// would be one more name in generated clients.
pub(crate) fn optional_age_schema() -> Object {
    let types = [Type::String, Type::Integer, Type::Null];
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(types.to_vec()))
        .description(Some("Age, e.g. `15m`, `36h` or `2d`, or a number of seconds"))
        .pattern(Some("^([0-9]{1,9}s?|[0-9]{1,7}m|[0-9]{1,5}h|[0-9]{1,4}d|[0-9]{1,3}w)$"))
        .minimum(Some(0))
        .maximum(Some(MAX_AGE_SECONDS))
        .build()
}

/// A time (RFC 3339). A time that this system cannot represent, like `9999-12-31T23:59:59Z`, is read as the
/// nearest time that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Timestamp)]
pub struct ClampedTimestamp(pub Timestamp);

impl FromStr for ClampedTimestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse().or_else(|error| clamp_out_of_range(text).ok_or(error)).map(Self)
    }
}

impl<'de> Deserialize<'de> for ClampedTimestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom("must be a time (RFC 3339)"))
    }
}

/// Returns the timestamp that is nearest to a time outside the range; `None` if the text is not a
/// time with an offset.
fn clamp_out_of_range(text: &str) -> Option<Timestamp> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    let pieces = PARSER.parse_pieces(text).ok()?;
    let (Some(PiecesOffset::Zulu | PiecesOffset::Numeric(_)), Some(_)) =
        (pieces.offset(), pieces.time())
    else {
        return None;
    };
    // Days from this one on, and up to the other one, are not in range at every offset.
    if pieces.date() >= date(9999, 12, 30) {
        Some(Timestamp::MAX)
    } else if pieces.date() <= date(-9999, 1, 2) {
        Some(Timestamp::MIN)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_seconds(text: &str) -> Option<i64> {
        Some(text.parse::<Age>().ok()?.duration.as_secs())
    }

    #[test]
    fn age_is_parsed_in_every_unit_and_displayed() {
        let ages = [
            ("90s", 90, "90s"),
            ("90", 90, "90s"),
            ("15m", 900, "15m"),
            ("36h", 129_600, "36h"),
            ("2d", 172_800, "2d"),
            ("1w", 604_800, "1w"),
            ("1h30m", 5_400, "90m"),
            ("36500d", MAX_AGE_SECONDS.cast_signed(), "36500d"),
            ("0", 0, "0s"),
        ];
        for (text, seconds, displayed) in ages {
            assert_eq!(parse_seconds(text), Some(seconds), "{text}");
            let age: Age = text.parse().unwrap();
            assert_eq!(age.to_string(), displayed);
            assert_eq!(displayed.parse(), Ok(age));
        }
    }

    #[test]
    fn invalid_age_is_refused_with_its_text() {
        for text in [
            "",
            "m",
            "15mm",
            "15hm",
            "-1",
            "-1m",
            "+1",
            "1m ago",
            "1y",
            "1mo",
            "15M",
            "\u{661}s",
            "5215w",
            "36501d",
            "18446744073709551616",
            "99999999999999999999999w",
        ] {
            let error = text.parse::<Age>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn time_before_the_earliest_timestamp_is_clamped() {
        let longest: Age = "36500d".parse().unwrap();
        assert_eq!(longest.before(Timestamp::MIN), Timestamp::MIN);
        let minute: Age = "1m".parse().unwrap();
        assert_eq!(minute.before(Timestamp::from_second(100).unwrap()).as_second(), 40);
    }

    #[test]
    fn age_in_json_is_a_text_or_a_number() {
        let parse = |json: &str| serde_json::from_str::<Age>(json);
        assert_eq!(parse("\"2h\"").unwrap(), parse("7200").unwrap());
        assert_eq!(serde_json::to_string(&parse("7200").unwrap()).unwrap(), "\"2h\"");
        for json in ["-1", "1.5", "null", "true", "[]", "\"soon\"", "99999999999999"] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(", expected "), "{error}");
        }
    }

    #[test]
    fn time_after_the_last_timestamp_is_clamped() {
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T00:00:00+01:00", "9999-12-30T23:00:00Z"] {
            assert_eq!(text.parse::<ClampedTimestamp>().unwrap().0, Timestamp::MAX, "{text}");
        }
        let in_range = "2026-01-02T03:04:05Z";
        assert_eq!(in_range.parse::<ClampedTimestamp>().unwrap().0.to_string(), in_range);
        for text in ["", "9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z", "tomorrow"] {
            assert!(text.parse::<ClampedTimestamp>().is_err(), "{text}");
        }
    }
}
