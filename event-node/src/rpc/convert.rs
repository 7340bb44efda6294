//! Conversions between messages of the protocol and values of the log.

use std::{collections::HashMap, sync::Arc};

use prost::bytes::Bytes;
use tonic::Status;
use uuid::{
    Uuid,
    fmt::{Hyphenated, Simple},
};

use crate::{
    access::Caller,
    log::{Event, ExpectedRevision, FilterField, FilterSpec, NewEvent, ResolvedEvent},
    metrics::count_read,
    persistent::StartFrom,
    rpc::status::{handler_threw, missing_metadata},
    wire::event_store::client as wire,
};

/// Maximum length of a stream or group name in bytes. Trailers carry names, and clients limit their
/// size.
pub(crate) const MAX_NAME_BYTES: usize = 1_024;

/// Content type of JSON events.
const JSON: &str = "application/json";

/// Content type of all other events.
const BINARY: &str = "application/octet-stream";

/// The end (-1) in unsigned fields of the protocol.
const END: u64 = u64::MAX;

/// The format of ids in responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdFormat {
    Structured,
    Text,
}

impl IdFormat {
    /// Returns the format that an option asks for, or `None` without an option. An empty option
    /// means structured ids.
    pub(crate) fn from_option(option: Option<&wire::UuidOption>) -> Option<Self> {
        use wire::uuid_option::Content;
        Some(match option?.content {
            Some(Content::Structured(_)) | None => Self::Structured,
            Some(Content::String(_)) => Self::Text,
        })
    }

    pub(crate) fn format_id(self, id: Uuid) -> wire::Uuid {
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

/// The caller of Streams.Read, and the format that the response has.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub caller: Caller,
    pub ids: IdFormat,
    pub resolve_links: bool,
    /// Whether the client understands responses with first and last revisions.
    pub reports_positions: bool,
}

impl From<wire::streams::read_resp::Content> for wire::streams::ReadResp {
    fn from(content: wire::streams::read_resp::Content) -> Self {
        Self { content: Some(content) }
    }
}

/// Parses an id in either format.
pub(crate) fn parse_id(id: Option<&wire::Uuid>) -> Option<Uuid> {
    use wire::uuid::Value;
    match id?.value.as_ref()? {
        Value::String(text) => parse_guid(text),
        Value::Structured(halves) => Some(Uuid::from_u64_pair(
            halves.most_significant_bits.cast_unsigned(),
            halves.least_significant_bits.cast_unsigned(),
        )),
    }
}

/// Parses an id in one of the forms that EventStoreDB accepts: 32 digits; 36 characters, also in
/// braces or parentheses; `{0x...,0x...,0x...,{0x..,...}}`. Surrounding blanks are ignored.
fn parse_guid(text: &str) -> Option<Uuid> {
    let text = text.trim();
    // As in .NET, only the form with hyphens may have brackets.
    let bracketed = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    let dashed = bracketed('{', '}').or_else(|| bracketed('(', ')')).unwrap_or(text);
    if dashed.len() == Hyphenated::LENGTH {
        return dashed.parse::<Hyphenated>().ok().map(Uuid::from);
    }
    if text.len() == Simple::LENGTH {
        return text.parse::<Simple>().ok().map(Uuid::from);
    }
    parse_guid_of_numbers(text)
}

/// Parses `{0x00112233,0x4455,0x6677,{0x88,0x99,0xaa,0xbb,0xcc,0xdd,0xee,0xff}}`.
fn parse_guid_of_numbers(text: &str) -> Option<Uuid> {
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

/// Parses a stream name. Fails if it is missing, empty, too long or not UTF-8.
pub(crate) fn parse_stream_name(
    identifier: Option<wire::StreamIdentifier>,
) -> Result<String, Status> {
    let bytes = identifier.ok_or_else(handler_threw)?.stream_name;
    let name = std::str::from_utf8(&bytes)
        .map_err(|_| Status::invalid_argument("The stream name is not UTF-8."))?;
    if name.is_empty() {
        return Err(handler_threw());
    }
    check_name_length(name, "stream")?;
    Ok(name.to_owned())
}

/// Fails if a group name is too long. Unlike a stream name, it may be empty.
pub(crate) fn check_group_name(name: &str) -> Result<(), Status> {
    check_name_length(name, "group")
}

fn check_name_length(name: &str, kind: &str) -> Result<(), Status> {
    if name.len() > MAX_NAME_BYTES {
        let text = format!("The {kind} name is longer than {MAX_NAME_BYTES} bytes.");
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

pub(crate) fn stream_identifier(stream: &str) -> wire::StreamIdentifier {
    wire::StreamIdentifier { stream_name: Bytes::copy_from_slice(stream.as_bytes()) }
}

/// Parses a revision; `None` is the end. Other numbers beyond the signed range are invalid.
pub(crate) fn parse_revision(number: u64) -> Result<Option<u64>, Status> {
    match number {
        END => Ok(None),
        number if i64::try_from(number).is_ok() => Ok(Some(number)),
        _ => Err(handler_threw()),
    }
}

/// Parses a position in `$all`; `None` is the end.
fn parse_position(position: wire::Position) -> Result<Option<u64>, Status> {
    let (commit, prepare) = (position.commit_position, position.prepare_position);
    if commit < prepare {
        return Err(handler_threw());
    }
    if commit == END && prepare != END {
        return Err(Status::unknown("Unexpected ReadAllResult: Error"));
    }
    // Checked, but not used: the node's events have equal commit and prepare positions.
    parse_revision(prepare)?;
    parse_revision(commit)
}

impl From<Option<u64>> for StartFrom {
    fn from(parsed: Option<u64>) -> Self {
        parsed.map_or(Self::End, Self::At)
    }
}

/// Parses where a read or a group starts. The messages of the protocol have the same choices, but
/// different types.
macro_rules! start_from {
    ($($oneof:path: $place:ident by $parse:ident),+ $(,)?) => {$(
        impl TryFrom<$oneof> for StartFrom {
            type Error = Status;

            fn try_from(start: $oneof) -> Result<Self, Status> {
                use $oneof as Wire;
                match start {
                    Wire::$place(place) => $parse(place).map(Self::from),
                    Wire::Start(_) => Ok(Self::Beginning),
                    Wire::End(_) => Ok(Self::End),
                }
            }
        }
    )+};
}

start_from!(
    wire::streams::read_options::stream::RevisionOption: Revision by parse_revision,
    wire::streams::read_options::all::PositionOption: Position by parse_position,
    wire::persistent_subscriptions::stream_options::RevisionOption: Revision by parse_revision,
    wire::persistent_subscriptions::all_options::PositionOption: Position by parse_position,
);

pub(crate) fn parse_filter(options: &wire::FilterOptions) -> Result<FilterSpec, Status> {
    use wire::filter_options::Filter;
    let (field, expression) = match options.filter.as_ref() {
        Some(Filter::StreamIdentifier(expression)) => (FilterField::StreamName, expression),
        Some(Filter::EventType(expression)) => (FilterField::EventType, expression),
        None => return Err(Status::invalid_argument("The filter names no field.")),
    };
    let (regex, prefixes) = (expression.regex.clone(), expression.prefix.clone());
    Ok(FilterSpec { field, regex, prefixes })
}

pub(crate) fn parse_proposed(message: wire::ProposedMessage) -> Result<NewEvent, Status> {
    let property = |name| message.metadata.get(name).ok_or_else(|| missing_metadata(name));
    let event_type = property("type")?.clone();
    // As in EventStoreDB, JSON with parameters counts as binary (recorded as `content-type
    // application/json; charset=utf-8`).
    let is_json = property("content-type")? == JSON;
    let id = parse_id(message.id.as_ref()).filter(|id| !id.is_nil()).ok_or_else(handler_threw)?;
    if event_type.is_empty() {
        return Err(handler_threw());
    }
    let (metadata, data) = (message.custom_metadata, message.data);
    Ok(NewEvent { id, event_type, is_json, metadata, data })
}

/// Returns an event as a message. `position` becomes both its commit and its prepare position.
pub(crate) fn to_recorded_event(
    event: &Event,
    format: IdFormat,
    position: u64,
) -> wire::RecordedEvent {
    count_read(event.data.len() + event.metadata.len());
    let content_type = if event.is_json { JSON } else { BINARY };
    wire::RecordedEvent {
        id: Some(format.format_id(event.id)),
        stream_identifier: Some(stream_identifier(&event.stream)),
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

/// Returns the event of a read or catch-up subscription. Event and link have their own positions.
pub(crate) fn to_read_event(
    resolved: &ResolvedEvent,
    format: IdFormat,
) -> wire::streams::ReadEvent {
    use wire::streams::read_event::Position;
    let write = |event: &Option<Arc<Event>>| {
        event.as_ref().map(|event| to_recorded_event(event, format, event.position))
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
                    Some(Wire::$revision(revision)) => {
                        Ok(parse_revision(revision)?.map_or(Self::NoStream, Self::Revision))
                    }
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
    fn ids_round_trip_in_both_formats() {
        let known = Uuid::from_u128(0xf123_4567_89ab_cdef_8123_4567_89ab_cdef);
        for format in [IdFormat::Structured, IdFormat::Text] {
            assert_eq!(parse_id(Some(&format.format_id(known))), Some(known));
        }
    }

    #[test]
    fn revisions_beyond_signed_range_are_invalid_except_end() {
        assert_eq!(parse_revision(u64::MAX).unwrap(), None);
        assert_eq!(parse_revision(i64::MAX as u64).unwrap(), Some(i64::MAX as u64));
        assert!(parse_revision(1 << 63).is_err());
    }

    #[test]
    fn ids_parse_in_all_forms_of_event_store_db() {
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
            assert_eq!(parse_guid(&text), Some(known), "{text}");
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
            assert_eq!(parse_guid(&text), None, "{text}");
        }
    }

    #[test]
    fn empty_id_option_means_structured_ids() {
        let empty = wire::UuidOption { content: None };
        assert_eq!(IdFormat::from_option(Some(&empty)), Some(IdFormat::Structured));
        assert_eq!(IdFormat::from_option(None), None);
    }

    #[test]
    fn positions_with_inconsistent_halves_are_invalid() {
        let parsed = |commit_position, prepare_position| {
            parse_position(wire::Position { commit_position, prepare_position }).ok()
        };
        assert_eq!(parsed(2, 1), Some(Some(2)));
        assert_eq!(parsed(END, END), Some(None));
        for (commit, prepare) in [(1, 2), (END, 0), (0, END), (1 << 63, 1)] {
            assert_eq!(parsed(commit, prepare), None, "{commit}/{prepare}");
        }
    }
}
