//! Times as clients write them in queries.

use jiff::Timestamp;
use jiff::civil::date;
use jiff::fmt::temporal::{DateTimeParser, PiecesOffset};
use serde::{Deserialize, Deserializer, Serialize, de};

/// A time of RFC 3339. The first and last days that the format can write are beyond what a
/// [`Timestamp`] holds, and many programs send `9999-12-31T23:59:59Z` for "no end": they are taken for
/// the first and the last time that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Moment(pub Timestamp);

impl std::str::FromStr for Moment {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse().or_else(|error| beyond(text).ok_or(error)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom("must be a time (RFC 3339)"))
    }
}

/// The nearest timestamp to a time that no timestamp holds.
fn beyond(text: &str) -> Option<Timestamp> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    let pieces = PARSER.parse_pieces(text).ok()?;
    let (Some(PiecesOffset::Zulu | PiecesOffset::Numeric(_)), Some(_)) =
        (pieces.offset(), pieces.time())
    else {
        return None;
    };
    // Behind the last whole day, and before the first, that holds in every offset.
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

    #[test]
    fn last_time_that_can_be_written_is_the_last_that_is_held() {
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T00:00:00+01:00", "9999-12-30T23:00:00Z"] {
            assert_eq!(text.parse::<Moment>().unwrap().0, Timestamp::MAX, "{text}");
        }
        let day = "2026-01-02T03:04:05Z";
        assert_eq!(day.parse::<Moment>().unwrap().0.to_string(), day);
        for text in ["", "9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z", "tomorrow"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
