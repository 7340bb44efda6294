//! Random values: invalid ones, mixed with usual ones.

use std::collections::HashMap;

use proptest::prelude::*;
use prost::bytes::Bytes;

use conformance::protocol::event_store::client::{
    Empty, FilterOptions, Position, ProposedMessage, StreamIdentifier, Uuid,
    filter_options::{Expression, Filter, Window},
    persistent_subscriptions::{
        Settings,
        settings::{CheckpointAfter, MessageTimeout},
    },
    streams::{
        DeleteOptions,
        delete_options::ExpectedStreamRevision,
        read_options::{All, all::PositionOption},
    },
    uuid::{Structured, Value},
};

/// Longer than the maximum length of a name.
const HUGE_NAME_BYTES: usize = 1_024 * 1_024;

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just("order-1".to_owned()),
        4 => Just("order-2".to_owned()),
        1 => Just(String::new()),
        1 => Just("$all".to_owned()),
        1 => Just("$$".to_owned()),
        1 => Just("$$order-1".to_owned()),
        1 => Just("$$$$order-1".to_owned()),
        1 => Just("a\0b\r\nc::\u{1f980}".to_owned()),
        1 => Just("n".repeat(1_024)),
        1 => Just("n".repeat(1_025)),
        1 => Just("n".repeat(HUGE_NAME_BYTES)),
    ]
}

/// A name, or bytes that are not UTF-8.
pub(crate) fn bytes_name() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        12 => name().prop_map(Bytes::from),
        1 => Just(Bytes::from_static(&[0xff, 0xfe, 0x00])),
    ]
}

pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..10_u64,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(1 << 63),
        1 => Just((1 << 63) - 1),
        1 => Just((1 << 63) - 2),
        1 => any::<u64>(),
    ]
}

pub(crate) fn count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..10_u32, 1 => Just(u32::MAX)]
}

pub(crate) fn small() -> impl Strategy<Value = i32> {
    prop_oneof![8 => 0..10_i32, 1 => Just(i32::MAX), 1 => Just(i32::MIN), 1 => Just(-1)]
}

pub(crate) fn id() -> impl Strategy<Value = Uuid> {
    let structured = (any::<i64>(), any::<i64>()).prop_map(|(most, least)| {
        Value::Structured(Structured { most_significant_bits: most, least_significant_bits: least })
    });
    let nil = Structured { most_significant_bits: 0, least_significant_bits: 0 };
    prop_oneof![
        6 => structured.prop_map(Some),
        1 => Just(Some(Value::Structured(nil))),
        1 => name().prop_map(|text| Some(Value::String(text))),
        4 => Just(Some(Value::String("f1234567-89ab-cdef-8123-456789abcdef".to_owned()))),
        1 => Just(None),
    ]
    .prop_map(|value| Uuid { value })
}

pub(crate) fn position() -> impl Strategy<Value = Position> {
    prop_oneof![
        number().prop_map(|at| Position { commit_position: at, prepare_position: at }),
        (number(), number()).prop_map(|(commit_position, prepare_position)| Position {
            commit_position,
            prepare_position
        }),
    ]
}

pub(crate) fn source_all() -> impl Strategy<Value = All> {
    prop_oneof![
        1 => Just(None),
        4 => position().prop_map(|position| Some(PositionOption::Position(position))),
        2 => Just(Some(PositionOption::Start(Empty {}))),
        2 => Just(Some(PositionOption::End(Empty {}))),
    ]
    .prop_map(|position_option| All { position_option })
}

pub(crate) fn filter() -> impl Strategy<Value = FilterOptions> {
    let regex = prop_oneof![
        Just(String::new()),
        Just("^order".to_owned()),
        Just("(".to_owned()),
        Just("^(?!(\\$.+$))".to_owned()),
        Just("(a*)*(a*)*b".to_owned()),
        Just("(x+x+)+y".repeat(20)),
    ];
    let expression = (regex, prop::collection::vec(name(), 0..3))
        .prop_map(|(regex, prefix)| Expression { regex, prefix });
    let field = (expression, any::<Option<bool>>()).prop_map(|(expression, field)| {
        field.map(|is_type| {
            if is_type {
                Filter::EventType(expression)
            } else {
                Filter::StreamIdentifier(expression)
            }
        })
    });
    let window = prop_oneof![
        Just(None),
        count().prop_map(|max| Some(Window::Max(max))),
        Just(Some(Window::Count(Empty {}))),
    ];
    (field, window, count()).prop_map(|(filter, window, checkpoint_interval_multiplier)| {
        FilterOptions { filter, window, checkpoint_interval_multiplier }
    })
}

pub(crate) fn proposed() -> impl Strategy<Value = ProposedMessage> {
    let metadata = prop_oneof![
        1 => Just(HashMap::new()),
        1 => name().prop_map(|name| HashMap::from([("type".to_owned(), name)])),
        8 => name().prop_map(|name| HashMap::from([
            ("type".to_owned(), name),
            ("content-type".to_owned(), "application/json".to_owned()),
        ])),
    ];
    let data = prop_oneof![
        8 => Just(Bytes::from_static(b"{}")),
        1 => Just(Bytes::from(vec![0; 1_048_577])),
        1 => Just(Bytes::from_static(br#"{"$tb":1e99,"$maxCount":-1,"$maxAge":"x"}"#)),
    ];
    (prop::option::weighted(0.9, id()), metadata, data).prop_map(|(id, metadata, data)| {
        ProposedMessage { id, metadata, custom_metadata: Bytes::new(), data }
    })
}

pub(crate) fn delete_options() -> impl Strategy<Value = DeleteOptions> {
    let expected = prop_oneof![
        1 => Just(None),
        4 => number().prop_map(|revision| Some(ExpectedStreamRevision::Revision(revision))),
        1 => Just(Some(ExpectedStreamRevision::Any(Empty {}))),
        1 => Just(Some(ExpectedStreamRevision::StreamExists(Empty {}))),
    ];
    (prop::option::of(bytes_name()), expected).prop_map(|(stream, expected_stream_revision)| {
        let stream_identifier = stream.map(|stream_name| StreamIdentifier { stream_name });
        DeleteOptions { stream_identifier, expected_stream_revision }
    })
}

pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    let strategy = prop_oneof![
        4 => Just(String::new()),
        1 => Just("Pinned".to_owned()),
        1 => Just("PinnedByCorrelation".to_owned()),
        1 => Just("n".repeat(HUGE_NAME_BYTES)),
        1 => name(),
    ];
    let timeout = prop_oneof![
        Just(None),
        any::<i64>().prop_map(|ticks| Some(MessageTimeout::MessageTimeoutTicks(ticks))),
        small().prop_map(|millis| Some(MessageTimeout::MessageTimeoutMs(millis))),
    ];
    let after = prop_oneof![
        Just(None),
        any::<i64>().prop_map(|ticks| Some(CheckpointAfter::CheckpointAfterTicks(ticks))),
        small().prop_map(|millis| Some(CheckpointAfter::CheckpointAfterMs(millis))),
    ];
    (prop::array::uniform7(small()), prop::bool::weighted(0.7), strategy, timeout, after, number())
        .prop_map(
            |(
                numbers,
                is_valid,
                consumer_strategy,
                message_timeout,
                checkpoint_after,
                revision,
            )| {
                let [retries, minimum, maximum, subscribers, live, batch, history] = numbers;
                Settings {
                    resolve_links: true,
                    revision,
                    extra_statistics: true,
                    max_retry_count: retries,
                    min_checkpoint_count: minimum,
                    max_checkpoint_count: maximum,
                    max_subscriber_count: subscribers,
                    live_buffer_size: live,
                    read_batch_size: if is_valid { 20 } else { batch },
                    history_buffer_size: if is_valid { 500 } else { history },
                    named_consumer_strategy: subscribers,
                    message_timeout,
                    checkpoint_after,
                    consumer_strategy,
                }
            },
        )
}
