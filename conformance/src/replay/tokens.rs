//! What a scenario's text says in place of what differs from run to run.
//!
//! | in the recording | stands for |
//! | --- | --- |
//! | `~` in a request | the random ending of the scenario's own names; answers are shown without it |
//! | `id(x)`, `ID(x)`, `hex(x)` | the id that the scenario calls `x`: as usual, in upper case, without dashes |
//! | `uuid(1)` | an id that the server made: the first one seen |
//! | `s#3` | the position of event 3 of stream `s` |
//! | `>s#3` | a position behind that event and before the next one that was seen |
//! | `TIME`, `HOST:PORT` | a point in time, the server's address |

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::LazyLock,
};

use regex::{Captures, Regex};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Marks a position in the text of an answer until the scenario is over.
const POSITION_MARK: char = '\u{1}';

/// Positions that are shown by these names.
const NAMED_POSITIONS: [(u64, &str); 3] =
    [(u64::MAX, "U64MAX"), (i64::MAX as u64, "I64MAX"), (i64::MAX as u64 + 1, "I64MAX+1")];

#[expect(clippy::expect_used, reason = "the patterns are constants that the tests use")]
fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is valid")
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| compile(r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
static BARE_UUID: LazyLock<Regex> = LazyLock::new(|| compile(r"\b[0-9a-f]{32}\b"));
static TIME: LazyLock<Regex> =
    LazyLock::new(|| compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(Z|[+-]\d\d:\d\d)?"));
static COMMIT_AND_PREPARE: LazyLock<Regex> = LazyLock::new(|| compile(r"C:(\d+)/P:(\d+)"));
static ID_TOKEN: LazyLock<Regex> = LazyLock::new(|| compile(r"\b(id|ID|hex)\(([\w-]+)\)"));
static UUID_TOKEN: LazyLock<Regex> = LazyLock::new(|| compile(r"uuid\([^)]*\)"));

/// The names, ids and positions of one run of a scenario.
#[derive(Debug)]
pub(super) struct Tokens {
    /// What the scenario's own names end with.
    suffix: String,
    address: String,
    ids: HashMap<String, Uuid>,
    labels: HashMap<Uuid, String>,
    /// Events that were seen, by position.
    events: BTreeMap<u64, String>,
    /// Positions and events that answers to appends named, in order.
    claims: Vec<(u64, String)>,
    /// All positions that were seen.
    seen: BTreeSet<u64>,
}

impl Tokens {
    /// `address` is the server's, as `host:port`.
    pub(super) fn new(address: &str, random: Uuid) -> Self {
        let suffix = format!("_{}", &random.simple().to_string()[..10]);
        let (ids, events) = (HashMap::new(), BTreeMap::new());
        let labels = HashMap::from([(Uuid::nil(), "nil uuid".to_owned())]);
        let (claims, seen) = (Vec::new(), BTreeSet::new());
        Self { suffix, address: address.to_owned(), ids, labels, events, claims, seen }
    }

    /// Replaces the tokens of a request's text. An id is made when it is first named.
    pub(super) fn fill_in(&mut self, text: &str) -> String {
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
        ID_TOKEN.replace_all(&text, fill).into_owned()
    }

    /// Returns the number that a request's position `s#3`, `s#3+1` or `s#3-1` stands for.
    pub(super) fn find_position(&self, token: &str) -> Option<u64> {
        let (label, offset) = match token {
            token if token.ends_with("+1") => (token.strip_suffix("+1")?, 1),
            token if token.ends_with("-1") => (token.strip_suffix("-1")?, -1),
            token => (token, 0),
        };
        let known = self.known_events();
        let is_named = |(_, name): &(&u64, &String)| name.replace(&self.suffix, "") == label;
        known.iter().find(is_named)?.0.checked_add_signed(offset)
    }

    /// Notes that an answer to an append put `event` (`stream#revision`) at `position`.
    pub(super) fn claim(&mut self, event: String, position: u64) {
        self.claims.push((position, event));
    }

    /// Notes that `event` (`stream#revision`) was read at `position`.
    pub(super) fn learn(&mut self, event: String, position: u64) {
        if !is_literal(position) {
            self.events.entry(position).or_insert(event);
        }
    }

    /// Returns the text that stands for a position until [`Tokens::render`].
    pub(super) fn mark_position(&mut self, position: u64) -> String {
        self.seen.insert(position);
        format!("{POSITION_MARK}{position}")
    }

    /// Events seen, and those claimed that were not seen elsewhere.
    fn known_events(&self) -> BTreeMap<u64, String> {
        let mut known = self.events.clone();
        let mut names: BTreeSet<_> = known.values().cloned().collect();
        for (position, event) in &self.claims {
            if !known.contains_key(position) && !names.contains(event) && !is_literal(*position) {
                known.insert(*position, event.clone());
                names.insert(event.clone());
            }
        }
        known
    }

    /// Replaces in an answer what differs from run to run. All answers of the scenario must have
    /// been seen.
    pub(super) fn render(&self, answer: &Value) -> Value {
        let positions = Positions::new(self);
        self.render_value(answer, &positions)
    }

    fn render_value(&self, value: &Value, positions: &Positions) -> Value {
        match value {
            Value::String(text) => match text.strip_prefix(POSITION_MARK) {
                Some(digits) => self.render_position(digits, positions).into(),
                None => self.render_text(text, positions).into(),
            },
            Value::Array(items) => {
                items.iter().map(|item| self.render_value(item, positions)).collect()
            }
            Value::Object(fields) => {
                let render = |(key, inner): (&String, &Value)| {
                    (self.render_text(key, positions), self.render_value(inner, positions))
                };
                Value::Object(fields.iter().map(render).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn render_position(&self, digits: &str, positions: &Positions) -> String {
        let shown = digits.parse().map_or_else(|_| digits.to_owned(), |it| positions.name(it));
        shown.replace(&self.suffix, "")
    }

    fn render_text(&self, text: &str, positions: &Positions) -> String {
        let text = text.replace(&self.suffix, "");
        let text = UUID.replace_all(&text, |found: &Captures<'_>| self.render_id(&found[0]));
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
            let [commit, prepare] =
                [1, 2].map(|part| self.render_position(&found[part], positions));
            format!("C:{commit}/P:{prepare}")
        });
        text.replace(&self.address, "HOST:PORT")
    }

    fn render_id(&self, text: &str) -> String {
        let Ok(id) = text.parse::<Uuid>() else { return text.to_owned() };
        match self.labels.get(&id) {
            Some(label) if id.is_nil() => label.clone(),
            Some(label) if text == text.to_lowercase() => format!("id({label})"),
            Some(label) => format!("ID({label})"),
            None => format!("uuid({id})"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "no event of a test derives from another")]
fn new_id() -> Uuid {
    Uuid::new_v4()
}

fn is_literal(position: u64) -> bool {
    position == 0 || NAMED_POSITIONS.iter().any(|(named, _)| *named == position)
}

/// The names of all positions of a finished scenario.
struct Positions {
    known: BTreeMap<u64, String>,
    /// The place of a position that is no event's among those behind the same event, from 1.
    places: HashMap<u64, u64>,
}

impl Positions {
    fn new(tokens: &Tokens) -> Self {
        let known = tokens.known_events();
        let mut places = HashMap::new();
        let mut counts: HashMap<Option<u64>, u64> = HashMap::new();
        for &position in &tokens.seen {
            if !is_literal(position) && !known.contains_key(&position) {
                let before = known.range(..position).next_back().map(|(position, _)| *position);
                let count = counts.entry(before).or_default();
                *count += 1;
                places.insert(position, *count);
            }
        }
        Self { known, places }
    }

    fn name(&self, position: u64) -> String {
        if position == 0 {
            return "0".to_owned();
        }
        if let Some((_, name)) = NAMED_POSITIONS.iter().find(|(named, _)| *named == position) {
            return (*name).to_owned();
        }
        if let Some(event) = self.known.get(&position) {
            return event.clone();
        }
        let place = match self.places.get(&position) {
            Some(place) if *place > 1 => format!(" ({place})"),
            _ => String::new(),
        };
        match self.known.range(..position).next_back() {
            Some((_, event)) => format!(">{event}{place}"),
            None if self.known.is_empty() => format!("a position{place}"),
            None => format!("before the first event seen{place}"),
        }
    }
}

/// Numbers ids that the server made by their first appearance, in all answers of a scenario. The
/// order of an object's keys does not count.
pub(super) fn number_unknown_ids(answers: &mut [Value]) {
    fn visit(value: &mut Value, numbers: &mut HashMap<String, usize>) {
        match value {
            Value::String(text) => {
                let number = |found: &Captures<'_>| {
                    let next = numbers.len() + 1;
                    format!("uuid({})", numbers.entry(found[0].to_owned()).or_insert(next))
                };
                *text = UUID_TOKEN.replace_all(text, number).into_owned();
            }
            Value::Array(items) => items.iter_mut().for_each(|item| visit(item, numbers)),
            Value::Object(fields) => {
                sort_keys(fields);
                fields.values_mut().for_each(|inner| visit(inner, numbers));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    let mut numbers = HashMap::new();
    for answer in answers {
        visit(answer, &mut numbers);
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

    fn tokens() -> Tokens {
        Tokens::new("127.0.0.1:2113", Uuid::from_u128(u128::MAX))
    }

    #[test]
    fn names_and_ids_of_requests_come_back_as_tokens() {
        let mut tokens = tokens();
        for text in ["s~", "ID(x)", "hex(x)", "{id(x)}", "urn:uuid:id(x)", "$$s~"] {
            let sent = tokens.fill_in(text);
            assert!(!sent.contains(['~', '(']), "{sent}");
            assert_eq!(tokens.render(&json!(sent)), json!(text.replace('~', "")));
        }
        assert_eq!(tokens.fill_in("id(x)"), tokens.fill_in("id(x)"));
        assert_ne!(tokens.fill_in("id(x)"), tokens.fill_in("id(y)"));
    }

    #[test]
    fn positions_are_named_by_the_event_before_them() {
        let mut tokens = tokens();
        let stream = tokens.fill_in("s~");
        tokens.learn(format!("{stream}#0"), 100);
        tokens.claim(format!("{stream}#1"), 200);
        let seen = [0, 50, 100, 150, 160, 200, 250, u64::MAX];
        let marks: Vec<_> = seen.map(|position| json!(tokens.mark_position(position))).into();
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
        assert_eq!(tokens.render(&json!(marks)), json!(names));
        assert_eq!(tokens.find_position("s#1"), Some(200));
        assert_eq!(tokens.find_position("s#0-1"), Some(99));
        assert_eq!(tokens.find_position("s#0+1"), Some(101));
        assert_eq!(tokens.find_position("s#2"), None);
    }

    #[test]
    fn event_that_was_read_wins_over_one_that_was_claimed() {
        let mut tokens = tokens();
        tokens.claim("s#0".to_owned(), 100);
        tokens.learn("s#0".to_owned(), 90);
        let marks = [90, 100].map(|position| json!(tokens.mark_position(position)));
        assert_eq!(tokens.render(&json!(marks)), json!(["s#0", ">s#0"]));
    }

    #[test]
    fn times_and_the_address_of_the_server_are_tokens() {
        let text = json!("2026-11-29T10:00:00.1Z at 127.0.0.1:2113, 2026-11-29T10:00:00+01:00");
        assert_eq!(tokens().render(&text), json!("TIMEZ at HOST:PORT, TIME+OFFSET"));
    }

    #[test]
    fn ids_of_the_server_are_numbered_by_appearance() {
        let other = Uuid::from_u128(1);
        let tokens = tokens();
        let mut answers = [json!({ "b": ID, "a": other }), json!(ID)];
        for answer in &mut answers {
            *answer = tokens.render(answer);
        }
        number_unknown_ids(&mut answers);
        assert_eq!(answers, [json!({ "a": "uuid(1)", "b": "uuid(2)" }), json!("uuid(2)")]);
    }
}
