//! JSON bodies without duplicate members.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};
use serde_path_to_error::{Path, Segment};

use crate::problem::Fault;

/// Reads a body. Faults do not repeat the content: it may be a secret, and faults may be logged.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    // Two passes: the first one sees duplicate members, the second one names the place of a fault.
    let Unambiguous(value) = serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            Category::Data => "an object has a duplicate member",
            Category::Eof => "the JSON ends too early",
            Category::Syntax | Category::Io => "not JSON",
        };
        Fault::new("", format!("{what}: line {}, column {}", error.line(), error.column()))
    })?;
    if value.is_array() {
        // serde would read a list as the fields of a struct, in their order.
        return Err(Fault::new("", "must be an object"));
    }
    serde_path_to_error::deserialize(value)
        .map_err(|error| Fault::new(to_pointer(error.path()), expected_shape(error.inner())))
}

/// Returns the JSON pointer (RFC 6901) of a path.
fn to_pointer(path: &Path) -> String {
    let segments = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    segments.flat_map(|segment| ["/".to_owned(), segment]).collect()
}

/// Returns what a type expects, without the value.
fn expected_shape(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let expected =
        text.rsplit_once(", expected ").map(|(_, expected)| format!("expected {expected}"));
    match expected {
        Some(expected) => expected,
        None if text.starts_with("missing field") => text,
        None => "not of the documented shape".to_owned(),
    }
}

/// A value without duplicate members.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl<'de> DeserializeSeed<'de> for ValueVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(ValueVisitor)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(ValueVisitor)?;
            if object.insert(name, value).is_some() {
                return Err(Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Reason {
        reason: String,
    }

    fn detail<T: DeserializeOwned>(body: &str) -> String {
        parse::<T>(body.as_bytes()).map_or_else(|fault| fault.detail, |_| "no fault".to_owned())
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let text = r#"{"a":[null,true,-1,18446744073709551615,1.5,"\u00e9"],"b":{"a":{}}}"#;
        assert_eq!(
            parse::<Value>(text.as_bytes()).unwrap().to_string(),
            text.replace("\\u00e9", "é")
        );
    }

    #[test]
    fn faults_name_the_place_without_the_content() {
        assert_eq!(
            detail::<Value>("{\"a\":1,\n\"a\":2}"),
            "an object has a duplicate member: line 2, column 6"
        );
        assert_eq!(
            detail::<Value>(r#"[{"a":{"b":1,"b":1}}]"#),
            "an object has a duplicate member: line 1, column 19"
        );
        assert_eq!(detail::<Value>("{\"a\""), "the JSON ends too early: line 1, column 4");
        assert_eq!(detail::<Value>("{} {}"), "not JSON: line 1, column 4");
        assert_eq!(detail::<Reason>(r#"["stolen"]"#), "must be an object");
        assert_eq!(detail::<Value>("1e400"), "not JSON: line 1, column 5");

        assert_eq!(detail::<Reason>("{}"), "missing field `reason`");
        assert_eq!(detail::<Reason>(r#"{"reason":{"secret":1}}"#), "expected a string");
        let nested = parse::<std::collections::HashMap<String, Vec<u8>>>(br#"{"a/b":[1,"x"]}"#);
        assert_eq!(nested.unwrap_err().pointer, "/a~1b/1");
    }
}
