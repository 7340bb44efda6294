//! Between the protocol's messages and the log's values.

use std::{collections::HashMap, sync::Arc};

use prost::bytes::Bytes;
use tonic::Status;
use uuid::{
    Uuid,
    fmt::{Hyphenated, Simple},
};

use crate::{
    log::{Event, ExpectedRevision, FilterField, FilterSpec, NewEvent, ResolvedEvent},
    rpc::status::{handler_threw, missing_metadata},
    wire::event_store::client as wire,
};

/// Longest stream or group name, in bytes: names travel in trailers, whose size clients bound.
pub(crate) const MAX_NAME_BYTES: usize = 1_024;

/// Content type of events whose json flag is set.
const JSON: &str = "application/json";

/// Content type of all others.
const BINARY: &str = "application/octet-stream";

/// What the unsigned fields of the protocol say for -1, the end.
const END: u64 = u64::MAX;

/// How a caller wants ids written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdStyle {
    Structured,
    Text,
}

impl IdStyle {
    /// `None` without an option; an option that says nothing means the structured style.
    pub(crate) fn of(option: Option<&wire::UuidOption>) -> Option<Self> {
        use wire::uuid_option::Content;
        Some(match option?.content {
            Some(Content::Structured(_)) | None => Self::Structured,
            Some(Content::String(_)) => Self::Text,
        })
    }

    pub(crate) fn write(self, id: Uuid) -> wire::Uuid {
        use wire::uuid::{Structured, Value};
        let value = match self {
            Self::Text => Value::String(id.to_string()),
            Self::Structured => {
                let (most, least) = id.as_u64_pair();
                Value::Structured(Structured {
                    most_significant_bits: most.cast_signed(),
                    least_significant_bits: least.cast_signed(),
                })
            }
        };
        wire::Uuid { value: Some(value) }
    }
}

/// Reads an id in either style.
pub(crate) fn id(id: Option<&wire::Uuid>) -> Option<Uuid> {
    use wire::uuid::Value;
    match id?.value.as_ref()? {
        Value::String(text) => guid(text),
        Value::Structured(halves) => Some(Uuid::from_u64_pair(
            halves.most_significant_bits.cast_unsigned(),
            halves.least_significant_bits.cast_unsigned(),
        )),
    }
}

/// Reads an id in one of the forms that the original accepts: 32 digits, the usual 36 characters,
/// those in braces or parentheses, or `{0x...,0x...,0x...,{0x..,...}}`; with blanks around it.
fn guid(text: &str) -> Option<Uuid> {
    let text = text.trim();
    let bracketed = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    let dashed = bracketed('{', '}').or_else(|| bracketed('(', ')')).unwrap_or(text);
    if dashed.len() == Hyphenated::LENGTH {
        return dashed.parse::<Hyphenated>().ok().map(Uuid::from);
    }
    if text.len() == Simple::LENGTH {
        return text.parse::<Simple>().ok().map(Uuid::from);
    }
    guid_of_numbers(text)
}

/// Reads `{0x00112233,0x4455,0x6677,{0x88,0x99,0xaa,0xbb,0xcc,0xdd,0xee,0xff}}`.
fn guid_of_numbers(text: &str) -> Option<Uuid> {
    let (numbers, bytes) = text.strip_prefix('{')?.strip_suffix("}}")?.split_once(",{")?;
    let mut numbers = numbers
        .split(',')
        .map(|number| u32::from_str_radix(number.trim().strip_prefix("0x")?, 16).ok());
    let (first, second, third) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let bytes: Option<Vec<u8>> = bytes
        .split(',')
        .map(|byte| u8::from_str_radix(byte.trim().strip_prefix("0x")?, 16).ok())
        .collect();
    let last: [u8; 8] = bytes?.try_into().ok()?;
    let (second, third) = (second.try_into().ok()?, third.try_into().ok()?);
    numbers.next().is_none().then(|| Uuid::from_fields(first, second, third, &last))
}

/// A stream's name, which has to be there and to be UTF-8.
pub(crate) fn stream_name(identifier: Option<wire::StreamIdentifier>) -> Result<String, Status> {
    let bytes = identifier.ok_or_else(handler_threw)?.stream_name;
    let name = std::str::from_utf8(&bytes)
        .map_err(|_| Status::invalid_argument("The stream name is not UTF-8."))?;
    name_within_limits(name, "stream")?;
    Ok(name.to_owned())
}

/// Refuses names of streams that are empty or too long.
pub(crate) fn name_within_limits(name: &str, what: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Err(handler_threw());
    }
    not_too_long(name, what)
}

/// Refuses names of groups that are too long. An empty one is a name as any other.
pub(crate) fn group_name_within_limits(name: &str) -> Result<(), Status> {
    not_too_long(name, "group")
}

fn not_too_long(name: &str, what: &str) -> Result<(), Status> {
    if name.len() > MAX_NAME_BYTES {
        let text = format!("The {what} name is longer than {MAX_NAME_BYTES} bytes.");
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

pub(crate) fn identifier(stream: &str) -> wire::StreamIdentifier {
    wire::StreamIdentifier { stream_name: Bytes::copy_from_slice(stream.as_bytes()) }
}

/// A revision as a caller writes it: a number, or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    At(u64),
    End,
}

impl Place {
    /// Reads a revision. Beyond the signed range only -1 has a meaning.
    pub(crate) fn revision(number: u64) -> Result<Self, Status> {
        match number {
            END => Ok(Self::End),
            number if i64::try_from(number).is_ok() => Ok(Self::At(number)),
            _ => Err(handler_threw()),
        }
    }

    /// Reads a position in `$all`.
    pub(crate) fn position(position: &wire::Position) -> Result<Self, Status> {
        let (commit, prepare) = (position.commit_position, position.prepare_position);
        if commit < prepare {
            return Err(handler_threw());
        }
        if commit == END && prepare != END {
            return Err(Status::unknown("Unexpected ReadAllResult: Error"));
        }
        Self::revision(prepare)?;
        Self::revision(commit)
    }
}

/// Reads a filter.
pub(crate) fn filter(options: &wire::FilterOptions) -> Result<FilterSpec, Status> {
    use wire::filter_options::Filter;
    let (field, expression) = match options.filter.as_ref() {
        Some(Filter::StreamIdentifier(it)) => (FilterField::StreamName, it),
        Some(Filter::EventType(it)) => (FilterField::EventType, it),
        None => return Err(Status::invalid_argument("The filter names no field.")),
    };
    let (regex, prefixes) = (expression.regex.clone(), expression.prefix.clone());
    Ok(FilterSpec { field, regex, prefixes })
}

/// Reads an event to append.
pub(crate) fn proposed(message: wire::ProposedMessage) -> Result<NewEvent, Status> {
    let property = |name| message.metadata.get(name).ok_or_else(|| missing_metadata(name));
    let event_type = property("type")?.clone();
    let is_json = property("content-type")? == JSON;
    let id = id(message.id.as_ref()).filter(|id| !id.is_nil()).ok_or_else(handler_threw)?;
    if event_type.is_empty() {
        return Err(handler_threw());
    }
    let (metadata, data) = (message.custom_metadata, message.data);
    Ok(NewEvent { id, event_type, is_json, metadata, data })
}

/// Writes an event with the position that its message gives it.
pub(crate) fn recorded(event: &Event, style: IdStyle, position: u64) -> wire::RecordedEvent {
    let content_type = if event.is_json { JSON } else { BINARY };
    wire::RecordedEvent {
        id: Some(style.write(event.id)),
        stream_identifier: Some(identifier(&event.stream)),
        stream_revision: event.revision,
        prepare_position: position,
        commit_position: position,
        metadata: HashMap::from([
            ("type".to_owned(), event.event_type.clone()),
            ("created".to_owned(), event.created_ticks.to_string()),
            ("content-type".to_owned(), content_type.to_owned()),
        ]),
        custom_metadata: event.metadata.clone(),
        data: event.data.clone(),
    }
}

/// Writes what a read or a catch-up subscription delivers: both parts with their own position.
pub(crate) fn read_event(resolved: &ResolvedEvent, style: IdStyle) -> wire::streams::ReadEvent {
    use wire::streams::read_event::Position;
    let write = |event: &Option<Arc<Event>>| {
        event.as_ref().map(|event| recorded(event, style, event.position))
    };
    wire::streams::ReadEvent {
        event: write(&resolved.event),
        link: write(&resolved.link),
        position: resolved.original_event().map(|event| Position::CommitPosition(event.position)),
    }
}

macro_rules! expected_from {
    ($($oneof:path: $revision:ident),+ $(,)?) => {$(
        impl TryFrom<Option<$oneof>> for ExpectedRevision {
            type Error = Status;

            fn try_from(expected: Option<$oneof>) -> Result<Self, Status> {
                use $oneof as Wire;
                match expected {
                    Some(Wire::$revision(revision)) => match Place::revision(revision)? {
                        Place::At(revision) => Ok(Self::Revision(revision)),
                        Place::End => Ok(Self::NoStream),
                    },
                    Some(Wire::NoStream(_)) => Ok(Self::NoStream),
                    Some(Wire::Any(_)) => Ok(Self::Any),
                    Some(Wire::StreamExists(_)) => Ok(Self::StreamExists),
                    None => Err(Status::invalid_argument(
                        "The expected revision is missing: give a revision, no stream, stream \
                         exists, or any.",
                    )),
                }
            }
        }
    )+};
}

expected_from!(
    wire::streams::append_req::options::ExpectedStreamRevision: Revision,
    wire::streams::delete_options::ExpectedStreamRevision: Revision,
    wire::streams::batch_append_req::options::ExpectedStreamPosition: StreamPosition,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_both_styles() {
        let known = Uuid::from_u128(0xf123_4567_89ab_cdef_8123_4567_89ab_cdef);
        for style in [IdStyle::Structured, IdStyle::Text] {
            assert_eq!(id(Some(&style.write(known))), Some(known));
        }
    }

    #[test]
    fn revisions_beyond_the_signed_range_are_refused_except_the_end() {
        assert_eq!(Place::revision(u64::MAX).unwrap(), Place::End);
        assert_eq!(Place::revision(i64::MAX as u64).unwrap(), Place::At(i64::MAX as u64));
        assert!(Place::revision(1 << 63).is_err());
    }

    #[test]
    fn ids_are_read_in_the_forms_of_the_original() {
        let known = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let dashed = "00112233-4455-6677-8899-AABBCCDDEEFF";
        for text in [
            dashed.to_owned(),
            dashed.replace('-', ""),
            format!("{{{dashed}}}"),
            format!("({dashed})"),
            format!(" {dashed}\t"),
            "{0x00112233,0x4455,0x6677,{0x88,0x99,0xaa,0xbb,0xcc,0xdd,0xee,0xff}}".to_owned(),
        ] {
            assert_eq!(guid(&text), Some(known), "{text}");
        }
        for text in [
            format!("urn:uuid:{dashed}"),
            format!("{{{}}}", dashed.replace('-', "")),
            format!("({dashed}"),
            format!("{dashed}0"),
            "{0x1,0x2,0x3,{0x4}}".to_owned(),
            "x".to_owned(),
            String::new(),
        ] {
            assert_eq!(guid(&text), None, "{text}");
        }
    }

    #[test]
    fn an_id_option_that_says_nothing_means_structured() {
        let silent = wire::UuidOption { content: None };
        assert_eq!(IdStyle::of(Some(&silent)), Some(IdStyle::Structured));
        assert_eq!(IdStyle::of(None), None);
    }

    #[test]
    fn positions_whose_halves_do_not_fit_are_refused() {
        let place = |commit_position, prepare_position| {
            Place::position(&wire::Position { commit_position, prepare_position }).ok()
        };
        assert_eq!(place(2, 1), Some(Place::At(2)));
        assert_eq!(place(END, END), Some(Place::End));
        for (commit, prepare) in [(1, 2), (END, 0), (0, END), (1 << 63, 1)] {
            assert_eq!(place(commit, prepare), None, "{commit}/{prepare}");
        }
    }
}
