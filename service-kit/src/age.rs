//! How old something must be, as operators write it.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Beyond this many seconds (a hundred years of 365 days) nothing is that old.
pub const MAX_SECONDS: u64 = 100 * 365 * 86_400;

/// The units, the largest first, in seconds.
const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A length of time up to now: `15m`, `36h`, `2d`, `90s`, `1w`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    /// At most [`MAX_SECONDS`].
    seconds: u64,
}

/// Why a text is no age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    #[error("`{0}` is no age: write a whole number and s, m, h, d or w, e.g. `15m`, `36h` or `2d`")]
    Malformed(String),
    #[error("`{0}` is longer than a hundred years")]
    TooLong(String),
}

impl Age {
    /// The moment that long before `now`; the earliest there is if it would be earlier.
    pub fn before(self, now: Timestamp) -> Timestamp {
        let seconds = i64::try_from(self.seconds).unwrap_or(i64::MAX);
        now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
    }
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit));
        let (digits, in_seconds) = match unit {
            Some((unit, in_seconds)) => (text.trim_end_matches(*unit), *in_seconds),
            None => (text, 1),
        };
        // `15mm` has lost two letters.
        let is_number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
        let n_units = text.len() - digits.len();
        if !is_number || n_units > 1 {
            return Err(AgeError::Malformed(text.to_owned()));
        }
        // Digits that are no number of 64 bits are a number that is too large.
        let seconds = digits.parse().unwrap_or(u64::MAX).saturating_mul(in_seconds);
        if seconds > MAX_SECONDS {
            return Err(AgeError::TooLong(text.to_owned()));
        }
        Ok(Self { seconds })
    }
}

/// In the largest unit that needs no fraction.
impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_whole = |in_seconds: u64| self.seconds.is_multiple_of(in_seconds);
        let unit = UNITS.iter().find(|(_, in_seconds)| is_whole(*in_seconds));
        let (unit, in_seconds) = unit.filter(|_| self.seconds > 0).copied().unwrap_or(('s', 1));
        write!(f, "{}{unit}", self.seconds / in_seconds)
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl serde::de::Visitor<'_> for Visitor {
    type Value = Age;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an age like `15m`, `36h` or `2d`, or a number of seconds")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Age, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Age, E> {
        self.visit_str(&seconds.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        text.parse::<Age>().ok().map(|it| it.seconds)
    }

    #[test]
    fn ages_are_read_in_every_unit_and_shown_in_the_largest_that_fits() {
        let ages = [
            ("90s", 90, "90s"),
            ("90", 90, "90s"),
            ("15m", 900, "15m"),
            ("36h", 129_600, "36h"),
            ("48h", 172_800, "2d"),
            ("2d", 172_800, "2d"),
            ("1w", 604_800, "1w"),
            ("0", 0, "0s"),
        ];
        for (text, expected, shown) in ages {
            assert_eq!(seconds(text), Some(expected), "{text}");
            assert_eq!(text.parse::<Age>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_age_is_refused_by_its_name() {
        for text in ["", "m", "15 m", "15mm", "15hm", "-1", "+1", "1.5h", "1y", "15M", "\u{661}s"] {
            let error = text.parse::<Age>().unwrap_err();
            assert_eq!(error, AgeError::Malformed(text.to_owned()));
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
        for text in ["5215w", "36501d", "18446744073709551616", "99999999999999999999999w"] {
            assert_eq!(text.parse::<Age>(), Err(AgeError::TooLong(text.to_owned())));
        }
        assert_eq!(seconds("36500d"), Some(MAX_SECONDS));
    }

    #[test]
    fn any_age_is_before_any_time() {
        let longest: Age = "36500d".parse().unwrap();
        assert_eq!(longest.before(Timestamp::MIN), Timestamp::MIN);
        let minute: Age = "1m".parse().unwrap();
        assert_eq!(minute.before(Timestamp::from_second(100).unwrap()).as_second(), 40);
    }

    #[test]
    fn json_holds_a_text_or_a_number_and_nothing_else() {
        let read = |json: &str| serde_json::from_str::<Age>(json).ok();
        assert_eq!(read("\"2h\""), read("7200"));
        assert_eq!(serde_json::to_string(&read("7200")).unwrap(), "\"2h\"");
        for json in ["-1", "1.5", "null", "true", "[]", "\"soon\"", "99999999999999"] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
