//! Filters of `$all` readers.

use fancy_regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Maximum length of a filter's regular expression in bytes.
pub(super) const MAX_REGEX_BYTES: usize = 4_096;

pub(super) const MAX_PREFIXES: usize = 1_000;

/// Number of steps after which a backtracking match is abandoned. The value then does not match.
const BACKTRACK_LIMIT: usize = 100_000;

/// A filter as clients send it and as group settings store it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilterSpec {
    pub field: FilterField,
    /// Takes precedence over `prefixes` unless it is empty.
    pub regex: String,
    pub prefixes: Vec<String>,
}

/// The part of an event that a filter is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FilterField {
    StreamName,
    EventType,
}

/// Reason why a filter is invalid.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the filter's regular expression is invalid")]
    Regex(#[source] Box<fancy_regex::Error>),
    #[error(
        "the filter's regular expression subtracts a character class (`-[`), which this node does \
         not support: list the characters, or use a lookahead"
    )]
    Subtraction,
    #[error("the filter's regular expression is longer than {MAX_REGEX_BYTES} bytes")]
    LongRegex,
    #[error("the filter has more than {MAX_PREFIXES} prefixes")]
    ManyPrefixes,
}

#[derive(Debug)]
pub(crate) struct Filter {
    field: FilterField,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    Matches(Box<Regex>),
    StartsWithAny(Vec<String>),
}

impl Filter {
    pub(crate) fn new(spec: &FilterSpec) -> Result<Self, FilterError> {
        if spec.regex.len() > MAX_REGEX_BYTES {
            return Err(FilterError::LongRegex);
        }
        if spec.prefixes.len() > MAX_PREFIXES {
            return Err(FilterError::ManyPrefixes);
        }
        if subtracts_classes(&spec.regex) {
            return Err(FilterError::Subtraction);
        }
        let rule = if spec.regex.is_empty() {
            Rule::StartsWithAny(spec.prefixes.clone())
        } else {
            let regex = RegexBuilder::new(&spec.regex).backtrack_limit(BACKTRACK_LIMIT).build();
            Rule::Matches(Box::new(regex.map_err(|error| FilterError::Regex(Box::new(error)))?))
        };
        Ok(Self { field: spec.field, rule })
    }

    /// Returns whether an event of this stream and type passes the filter.
    pub(crate) fn matches_event(&self, stream: &str, event_type: &str) -> bool {
        let value = match self.field {
            FilterField::StreamName => stream,
            FilterField::EventType => event_type,
        };
        match &self.rule {
            Rule::Matches(regex) => regex.is_match(value).unwrap_or(false),
            Rule::StartsWithAny(prefixes) => {
                prefixes.iter().any(|prefix| value.starts_with(prefix.as_str()))
            }
        }
    }
}

/// Returns whether the expression subtracts a character class, as in `[a-z-[aeiou]]`. This regex
/// engine would read a nested class and match characters that the client excludes.
fn subtracts_classes(regex: &str) -> bool {
    let mut is_in_class = false;
    let mut characters = regex.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // An escaped bracket neither opens nor closes a class.
            '\\' => drop(characters.next()),
            '-' if is_in_class && characters.peek() == Some(&'[') => return true,
            '[' => is_in_class = true,
            ']' => is_in_class = false,
            _ => {}
        }
    }
    false
}

/// Returns whether `$all` shows the events of `stream`. The store's own bookkeeping streams are
/// hidden.
pub(super) fn is_visible_in_all(stream: &str) -> bool {
    let Some(group) = stream.strip_prefix("$persistentsubscription-$all::") else {
        return stream != "$epoch-information";
    };
    !group.ends_with("-checkpoint") && !group.ends_with("-parked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(field: FilterField, regex: &str, prefixes: &[&str]) -> Filter {
        let prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        Filter::new(&FilterSpec { field, regex: regex.to_owned(), prefixes }).unwrap()
    }

    #[test]
    fn negative_lookahead_excludes_system_events() {
        let filter = filter(FilterField::EventType, r"^(?!(\$.+$))", &[]);
        assert!(filter.matches_event("any", "OrderPlaced"));
        assert!(!filter.matches_event("any", "$metadata"));
    }

    #[test]
    fn regex_matches_anywhere_and_overrides_prefixes() {
        let filter = filter(FilterField::StreamName, "der-", &["nothing"]);
        assert!(filter.matches_event("order-1", ""));
        assert!(!filter.matches_event("nothing", ""));
    }

    #[test]
    fn any_prefix_matches_and_no_prefix_matches_nothing() {
        let some = filter(FilterField::StreamName, "", &["order-", "user-"]);
        assert!(some.matches_event("user-1", "") && some.matches_event("order-1", ""));
        assert!(!some.matches_event("Order-1", ""));
        assert!(!filter(FilterField::StreamName, "", &[]).matches_event("order-1", ""));
    }

    #[test]
    fn invalid_regex_is_refused() {
        let spec = FilterSpec {
            field: FilterField::EventType,
            regex: "(".to_owned(),
            prefixes: Vec::new(),
        };
        assert!(matches!(Filter::new(&spec), Err(FilterError::Regex(_))));
    }

    #[test]
    fn class_subtraction_is_refused_with_its_reason() {
        let spec = |regex: &str| FilterSpec {
            field: FilterField::EventType,
            regex: regex.to_owned(),
            prefixes: Vec::new(),
        };
        let refused = Filter::new(&spec("^[a-z-[b-z]]x")).unwrap_err();
        assert!(refused.to_string().contains("`-[`"), "{refused}");
        for regex in ["[a-z]-[0-9]", r"[\-a]-[b]", r"\[-[a]", "[a-]"] {
            assert!(Filter::new(&spec(regex)).is_ok(), "{regex}");
        }
    }

    #[test]
    fn bookkeeping_of_groups_is_hidden_from_all() {
        assert!(!is_visible_in_all("$persistentsubscription-$all::workers-parked"));
        assert!(is_visible_in_all("$persistentsubscription-order-1::workers-parked"));
        assert!(!is_visible_in_all("$epoch-information"));
    }
}
