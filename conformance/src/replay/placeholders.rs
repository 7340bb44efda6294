//! Placeholders for values that differ from run to run.
//!
//! | in the recording | stands for |
//! | --- | --- |
//! | `~` in a request | the random suffix of the scenario's own names; answers are shown without it |
//! | `id(x)`, `ID(x)`, `hex(x)` | the id that the scenario names `x`: as usual, in upper case, without dashes |
//! | `uuid(1)` | an id that the server generated: the first one |
//! | `s#3` | the position of event 3 of stream `s` |
//! | `>s#3` | a position after that event and before the next known one |
//! | `TIME`, `HOST:PORT` | a point in time, the address of the server |

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::LazyLock,
};

use regex::{Captures, Regex};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Marks a position in an answer until the scenario has ended.
const POSITION_MARK: char = '\u{1}';

/// Positions with fixed names.
const NAMED_POSITIONS: [(u64, &str); 3] =
    [(u64::MAX, "U64MAX"), (i64::MAX as u64, "I64MAX"), (i64::MAX as u64 + 1, "I64MAX+1")];

#[expect(clippy::expect_used, reason = "the patterns are constants, and tests compile them")]
fn compile_pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is valid")
}

static UUID: LazyLock<Regex> = LazyLock::new(|| {
    compile_pattern(r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
});
static BARE_UUID: LazyLock<Regex> = LazyLock::new(|| compile_pattern(r"\b[0-9a-f]{32}\b"));
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    compile_pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(Z|[+-]\d\d:\d\d)?")
});
static COMMIT_AND_PREPARE: LazyLock<Regex> = LazyLock::new(|| compile_pattern(r"C:(\d+)/P:(\d+)"));
static ID_PLACEHOLDER: LazyLock<Regex> =
    LazyLock::new(|| compile_pattern(r"\b(id|ID|hex)\(([\w-]+)\)"));
static UUID_PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| compile_pattern(r"uuid\([^)]*\)"));

/// The names, ids and positions of one run of a scenario.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    /// Suffix of the scenario's own names.
    suffix: String,
    address: String,
    ids: HashMap<String, Uuid>,
    labels: HashMap<Uuid, String>,
    /// Events that were read, by position.
    read_events: BTreeMap<u64, String>,
    /// Positions and events of successful appends, in order.
    appended_events: Vec<(u64, String)>,
    /// All positions in answers.
    seen: BTreeSet<u64>,
}

impl Placeholders {
    /// Creates the placeholders of a run against the server at `address` (`host:port`).
    pub(super) fn new(address: &str, random: Uuid) -> Self {
        let suffix = format!("_{}", &random.simple().to_string()[..10]);
        let labels = HashMap::from([(Uuid::nil(), "nil uuid".to_owned())]);
        Self { suffix, address: address.to_owned(), labels, ..Self::default() }
    }

    /// Replaces the placeholders in the text of a request. The first use of an id generates it.
    pub(super) fn fill_placeholders(&mut self, text: &str) -> String {
        let text = text.replace('~', &self.suffix);
        let fill = |found: &Captures<'_>| {
            let id = *self.ids.entry(found[2].to_owned()).or_insert_with(new_id);
            self.labels.insert(id, found[2].to_owned());
            match &found[1] {
                "ID" => id.to_string().to_uppercase(),
                "hex" => id.simple().to_string(),
                _ => id.to_string(),
            }
        };
        ID_PLACEHOLDER.replace_all(&text, fill).into_owned()
    }

    /// Returns the position for `s#3`, `s#3+1` or `s#3-1` in a request.
    pub(super) fn find_position(&self, placeholder: &str) -> Option<u64> {
        let (label, offset) = match placeholder {
            text if text.ends_with("+1") => (text.strip_suffix("+1")?, 1),
            text if text.ends_with("-1") => (text.strip_suffix("-1")?, -1),
            text => (text, 0),
        };
        let known = self.known_events();
        let is_named = |(_, name): &(&u64, &String)| name.replace(&self.suffix, "") == label;
        known.iter().find(is_named)?.0.checked_add_signed(offset)
    }

    /// Notes that an append has written `event` (`stream#revision`) at `position`.
    pub(super) fn note_appended(&mut self, event: String, position: u64) {
        self.appended_events.push((position, event));
    }

    /// Notes that `event` (`stream#revision`) was read at `position`.
    pub(super) fn note_read(&mut self, event: String, position: u64) {
        // 0 and the greatest numbers have fixed names, whichever event is shown with them.
        if !is_literal(position) {
            self.read_events.entry(position).or_insert(event);
        }
    }

    /// Returns a mark for a position. [`Placeholders::insert_into`] replaces it.
    pub(super) fn mark_position(&mut self, position: u64) -> String {
        self.seen.insert(position);
        format!("{POSITION_MARK}{position}")
    }

    /// Returns the events that were read, and appended events that were not read at another
    /// position.
    fn known_events(&self) -> BTreeMap<u64, String> {
        // The position of a read is exact. The answer to an append may name a position after the
        // event, so it counts only if no read has shown the event.
        let mut known = self.read_events.clone();
        let mut names: BTreeSet<_> = known.values().cloned().collect();
        for (position, event) in &self.appended_events {
            if !known.contains_key(position) && !names.contains(event) && !is_literal(*position) {
                known.insert(*position, event.clone());
                names.insert(event.clone());
            }
        }
        known
    }

    /// Replaces values that differ from run to run by placeholders. All answers of the scenario
    /// must have been translated before, because their positions are named relative to one another.
    pub(super) fn insert_into(&self, answer: &Value) -> Value {
        let positions = PositionNames::new(self);
        self.insert_into_value(answer, &positions)
    }

    fn insert_into_value(&self, value: &Value, positions: &PositionNames) -> Value {
        match value {
            Value::String(text) => match text.strip_prefix(POSITION_MARK) {
                Some(digits) => self.name_position(digits, positions).into(),
                None => self.insert_into_text(text, positions).into(),
            },
            Value::Array(items) => {
                items.iter().map(|item| self.insert_into_value(item, positions)).collect()
            }
            Value::Object(fields) => {
                let insert_into_key = |key: &String| self.insert_into_text(key, positions);
                let fields = fields.iter().map(|(key, inner)| {
                    (insert_into_key(key), self.insert_into_value(inner, positions))
                });
                Value::Object(fields.collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn name_position(&self, digits: &str, positions: &PositionNames) -> String {
        let shown = digits
            .parse()
            .map_or_else(|_| digits.to_owned(), |position| positions.position_name(position));
        shown.replace(&self.suffix, "")
    }

    fn insert_into_text(&self, text: &str, positions: &PositionNames) -> String {
        let text = text.replace(&self.suffix, "");
        let text = UUID.replace_all(&text, |found: &Captures<'_>| self.name_id(&found[0]));
        let text = BARE_UUID.replace_all(&text, |found: &Captures<'_>| {
            let label = found[0].parse().ok().and_then(|id: Uuid| self.labels.get(&id));
            label.map_or_else(|| found[0].to_owned(), |label| format!("hex({label})"))
        });
        let text = TIME.replace_all(&text, |found: &Captures<'_>| match found.get(1) {
            None => "TIME",
            Some(zone) if zone.as_str() == "Z" => "TIMEZ",
            Some(_) => "TIME+OFFSET",
        });
        let text = COMMIT_AND_PREPARE.replace_all(&text, |found: &Captures<'_>| {
            let [commit, prepare] = [1, 2].map(|part| self.name_position(&found[part], positions));
            format!("C:{commit}/P:{prepare}")
        });
        text.replace(&self.address, "HOST:PORT")
    }

    fn name_id(&self, text: &str) -> String {
        let Ok(id) = text.parse::<Uuid>() else { return text.to_owned() };
        match self.labels.get(&id) {
            Some(label) if id.is_nil() => label.clone(),
            Some(label) if text == text.to_lowercase() => format!("id({label})"),
            Some(label) => format!("ID({label})"),
            None => format!("uuid({id})"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the ids of a scenario are random")]
fn new_id() -> Uuid {
    Uuid::new_v4()
}

fn is_literal(position: u64) -> bool {
    position == 0 || NAMED_POSITIONS.iter().any(|(named, _)| *named == position)
}

/// The names of all positions of a finished scenario.
struct PositionNames {
    known: BTreeMap<u64, String>,
    /// Number of a position without an event, counted from 1 after the event before it.
    numbers_after_event: HashMap<u64, u64>,
}

impl PositionNames {
    fn new(placeholders: &Placeholders) -> Self {
        let known = placeholders.known_events();
        let mut numbers_after_event = HashMap::new();
        let mut counts: HashMap<Option<u64>, u64> = HashMap::new();
        for &position in &placeholders.seen {
            if !is_literal(position) && !known.contains_key(&position) {
                let before = known.range(..position).next_back().map(|(position, _)| *position);
                let count = counts.entry(before).or_default();
                *count += 1;
                numbers_after_event.insert(position, *count);
            }
        }
        Self { known, numbers_after_event }
    }

    fn position_name(&self, position: u64) -> String {
        if position == 0 {
            return "0".to_owned();
        }
        if let Some((_, name)) = NAMED_POSITIONS.iter().find(|(named, _)| *named == position) {
            return (*name).to_owned();
        }
        if let Some(event) = self.known.get(&position) {
            return event.clone();
        }
        let suffix = match self.numbers_after_event.get(&position) {
            Some(number) if *number > 1 => format!(" ({number})"),
            _ => String::new(),
        };
        match self.known.range(..position).next_back() {
            Some((_, event)) => format!(">{event}{suffix}"),
            None if self.known.is_empty() => format!("a position{suffix}"),
            None => format!("before the first event seen{suffix}"),
        }
    }
}

/// Numbers the ids that the server generated by first appearance in all answers of a scenario.
/// Objects are visited in the order of their sorted keys.
pub(super) fn number_unknown_ids(answers: &mut [Value]) {
    fn number_ids_in(value: &mut Value, numbers: &mut HashMap<String, usize>) {
        match value {
            Value::String(text) => {
                let number = |found: &Captures<'_>| {
                    let next = numbers.len() + 1;
                    format!("uuid({})", numbers.entry(found[0].to_owned()).or_insert(next))
                };
                *text = UUID_PLACEHOLDER.replace_all(text, number).into_owned();
            }
            Value::Array(items) => items.iter_mut().for_each(|item| number_ids_in(item, numbers)),
            Value::Object(fields) => {
                // The answer and the recording number their ids in one order, whatever the order of
                // their fields.
                sort_keys(fields);
                fields.values_mut().for_each(|inner| number_ids_in(inner, numbers));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    let mut numbers = HashMap::new();
    for answer in answers {
        number_ids_in(answer, &mut numbers);
    }
}

fn sort_keys(fields: &mut Map<String, Value>) {
    let mut sorted: Vec<_> = std::mem::take(fields).into_iter().collect();
    sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields.extend(sorted);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);

    fn new_placeholders() -> Placeholders {
        Placeholders::new("127.0.0.1:2113", Uuid::from_u128(u128::MAX))
    }

    #[test]
    fn names_and_ids_of_requests_become_placeholders_again() {
        let mut placeholders = new_placeholders();
        for text in ["s~", "ID(x)", "hex(x)", "{id(x)}", "urn:uuid:id(x)", "$$s~"] {
            let sent = placeholders.fill_placeholders(text);
            assert!(!sent.contains(['~', '(']), "{sent}");
            assert_eq!(placeholders.insert_into(&json!(sent)), json!(text.replace('~', "")));
        }
        let [x, same, y] = ["id(x)", "id(x)", "id(y)"].map(|id| placeholders.fill_placeholders(id));
        assert!(x == same && x != y, "{x}, {same}, {y}");
    }

    #[test]
    fn positions_are_named_after_the_preceding_event() {
        let mut placeholders = new_placeholders();
        let stream = placeholders.fill_placeholders("s~");
        placeholders.note_read(format!("{stream}#0"), 100);
        placeholders.note_appended(format!("{stream}#1"), 200);
        let seen = [0, 50, 100, 150, 160, 200, 250, u64::MAX];
        let marks: Vec<_> = seen.map(|position| json!(placeholders.mark_position(position))).into();
        let names = [
            "0",
            "before the first event seen",
            "s#0",
            ">s#0",
            ">s#0 (2)",
            "s#1",
            ">s#1",
            "U64MAX",
        ];
        assert_eq!(placeholders.insert_into(&json!(marks)), json!(names));
        assert_eq!(placeholders.find_position("s#1"), Some(200));
        assert_eq!(placeholders.find_position("s#0-1"), Some(99));
        assert_eq!(placeholders.find_position("s#0+1"), Some(101));
        assert_eq!(placeholders.find_position("s#2"), None);
    }

    #[test]
    fn read_event_precedes_appended_event() {
        let mut placeholders = new_placeholders();
        placeholders.note_appended("s#0".to_owned(), 100);
        placeholders.note_read("s#0".to_owned(), 90);
        let marks = [90, 100].map(|position| json!(placeholders.mark_position(position)));
        assert_eq!(placeholders.insert_into(&json!(marks)), json!(["s#0", ">s#0"]));
    }

    #[test]
    fn times_and_server_address_become_placeholders() {
        let text = json!("2026-11-29T10:00:00.1Z at 127.0.0.1:2113, 2026-11-29T10:00:00+01:00");
        assert_eq!(new_placeholders().insert_into(&text), json!("TIMEZ at HOST:PORT, TIME+OFFSET"));
    }

    #[test]
    fn server_ids_are_numbered_by_first_appearance() {
        let other = Uuid::from_u128(1);
        let placeholders = new_placeholders();
        let mut answers = [json!({ "b": ID, "a": other }), json!(ID)];
        for answer in &mut answers {
            *answer = placeholders.insert_into(answer);
        }
        number_unknown_ids(&mut answers);
        assert_eq!(answers, [json!({ "a": "uuid(1)", "b": "uuid(2)" }), json!("uuid(2)")]);
    }
}
