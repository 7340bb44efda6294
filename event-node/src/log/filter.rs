//! Which events a filtered reader sees.

use fancy_regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Longest regular expression a filter may have, in bytes.
pub(super) const MAX_REGEX_BYTES: usize = 4_096;

/// Most prefixes a filter may have.
pub(super) const MAX_PREFIXES: usize = 1_000;

/// Steps after which a backtracking match gives up. A name that needs more does not match.
const BACKTRACK_LIMIT: usize = 100_000;

/// A filter as a client describes it and as a group's settings keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilterSpec {
    pub field: FilterField,
    /// Wins over `prefixes` if it is not empty.
    pub regex: String,
    pub prefixes: Vec<String>,
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FilterField {
    StreamName,
    EventType,
}

/// Why a filter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the filter's regular expression is not valid")]
    Regex(#[source] Box<fancy_regex::Error>),
    #[error(
        "the filter's regular expression takes one class of characters from another (`-[`), which \
         this node cannot do: write the class without, or use a lookahead"
    )]
    Subtraction,
    #[error("the filter's regular expression is longer than {MAX_REGEX_BYTES} bytes")]
    LongRegex,
    #[error("the filter has more than {MAX_PREFIXES} prefixes")]
    ManyPrefixes,
}

/// A filter that is ready to be applied.
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

    /// Whether an event of this stream and type passes.
    pub(crate) fn passes(&self, stream: &str, event_type: &str) -> bool {
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

/// Whether one class is taken from another, as in `[a-z-[aeiou]]`. Here that would be a class inside
/// of a class, and match what was to be left out.
fn subtracts_classes(regex: &str) -> bool {
    let mut is_in_class = false;
    let mut characters = regex.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '-' if is_in_class && characters.peek() == Some(&'[') => return true,
            '[' => is_in_class = true,
            ']' => is_in_class = false,
            _ => {}
        }
    }
    false
}

/// Whether `$all` shows a stream's events: the store's own book-keeping stays out of it.
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
    fn a_negative_lookahead_keeps_system_events_out() {
        let filter = filter(FilterField::EventType, r"^(?!(\$.+$))", &[]);
        assert!(filter.passes("any", "OrderPlaced"));
        assert!(!filter.passes("any", "$metadata"));
    }

    #[test]
    fn a_regex_is_searched_anywhere_and_wins_over_prefixes() {
        let filter = filter(FilterField::StreamName, "der-", &["nothing"]);
        assert!(filter.passes("order-1", ""));
        assert!(!filter.passes("nothing", ""));
    }

    #[test]
    fn prefixes_are_alternatives_and_none_matches_nothing() {
        let some = filter(FilterField::StreamName, "", &["order-", "user-"]);
        assert!(some.passes("user-1", "") && some.passes("order-1", ""));
        assert!(!some.passes("Order-1", ""));
        assert!(!filter(FilterField::StreamName, "", &[]).passes("order-1", ""));
    }

    #[test]
    fn an_unreadable_regex_is_refused() {
        let spec = FilterSpec {
            field: FilterField::EventType,
            regex: "(".to_owned(),
            prefixes: Vec::new(),
        };
        assert!(matches!(Filter::new(&spec), Err(FilterError::Regex(_))));
    }

    #[test]
    fn a_class_that_is_taken_from_another_is_refused_with_the_reason() {
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
    fn the_books_of_groups_over_all_stay_out_of_all() {
        assert!(!is_visible_in_all("$persistentsubscription-$all::workers-parked"));
        assert!(is_visible_in_all("$persistentsubscription-order-1::workers-parked"));
        assert!(!is_visible_in_all("$epoch-information"));
    }
}
