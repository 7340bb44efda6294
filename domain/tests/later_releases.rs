//! Events and journal entries of a later release: unknown members change nothing, and unknown types and
//! schema versions are refused. docs/UPGRADING.md lists the consequences.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use domain::operations::{
    BreakerPhase, DeliveryPostponed, GatewayCalls, Pause, RedriveBegun, RedriveCancelled,
    RedriveEntry, RedriveMoved, WorkerReport,
};
use domain::order::{CURRENT_SCHEMA, DecodeError, EVENT_TYPES, decode, encode};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use testkit::histories::{ORDER, any_history};
use testkit::spec::at;
use uuid::Uuid;

/// A JSON value of any shape.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            any_members(inner).prop_map(Value::from),
        ]
    })
}

/// Members that no release has. Their names cannot be those of a known member.
fn any_members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let members = prop::collection::vec(("later_\\PC{0,6}", value), 1..4);
    members.prop_map(|members| members.into_iter().collect())
}

/// Adds members to every object of a document.
fn add_members(document: &mut Value, members: &Map<String, Value>) {
    match document {
        Value::Object(object) => {
            for value in object.values_mut() {
                add_members(value, members);
            }
            object.extend(members.clone());
        }
        Value::Array(values) => {
            for value in values {
                add_members(value, members);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn entries() -> [RedriveEntry; 3] {
    let (task_id, runner) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let begun = json!({"task_id": task_id, "filter": {"code": "x"}, "reason": "r", "actor": "a",
        "started_at": at(1), "n_total": 1, "runner": runner});
    let moved = json!({"task_id": task_id, "runner": runner, "batch": [ORDER],
        "counts": {"n_redriven": 5, "n_skipped": 0, "n_failed": 0},
        "batch_end": {"failed_at": at(1), "order_id": ORDER}});
    let cancelled = json!({"task_id": task_id, "actor": "a", "cancelled_at": at(2)});
    [
        RedriveEntry::Begun(Box::new(serde_json::from_value::<RedriveBegun>(begun).unwrap())),
        RedriveEntry::Moved(serde_json::from_value::<RedriveMoved>(moved).unwrap()),
        RedriveEntry::Cancelled(serde_json::from_value::<RedriveCancelled>(cancelled).unwrap()),
    ]
}

proptest! {
    #[test]
    fn unknown_members_of_events_change_nothing(
        history in any_history(),
        members in any_members(any_value()),
    ) {
        for event in history {
            let encoded = encode(&event).unwrap();
            let mut data: Value = serde_json::from_str(encoded.data.get()).unwrap();
            add_members(&mut data, &members);
            let data = data.to_string();
            let decoded = decode(encoded.event_type, encoded.schema_version, data.as_bytes());
            prop_assert_eq!(decoded.unwrap(), event);
        }
    }

    #[test]
    fn newer_schema_versions_are_never_guessed_at(
        history in any_history(),
        version in CURRENT_SCHEMA + 1..,
    ) {
        for event in history {
            let encoded = encode(&event).unwrap();
            let decoded = decode(encoded.event_type, version, encoded.data.get().as_bytes());
            let is_refused = matches!(decoded, Err(DecodeError::UnknownVersion { .. }));
            prop_assert!(is_refused, "{decoded:?}");
        }
    }

    #[test]
    fn unknown_types_are_refused_in_every_version(
        event_type in "[A-Z][A-Za-z]{0,20}",
        version in any::<u32>(),
        data in any_value(),
    ) {
        prop_assume!(!EVENT_TYPES.contains(&event_type.as_str()));
        let decoded = decode(&event_type, version, data.to_string().as_bytes());
        prop_assert!(matches!(decoded, Err(DecodeError::UnknownType(_))), "{decoded:?}");
    }

    #[test]
    fn unknown_members_of_journal_entries_change_nothing(members in any_members(any_value())) {
        let report = WorkerReport {
            worker: "w".to_owned(),
            breaker: BreakerPhase::Open,
            since: at(1),
            error: Some("e".to_owned()),
            watchdog_reconnects: 2,
            obeyed_pause: Some(3),
            gateway: Some(GatewayCalls { n_calls: 1, ..GatewayCalls::default() }),
        };
        let pause = Pause { reason: Some("r".to_owned()) };
        let timer = DeliveryPostponed { order_id: ORDER, attempt: 1, until: at(3) };
        let extend = |mut data: Value| {
            add_members(&mut data, &members);
            data
        };
        let read: WorkerReport =
            serde_json::from_value(extend(serde_json::to_value(&report).unwrap())).unwrap();
        prop_assert_eq!(read, report);
        let read: Pause =
            serde_json::from_value(extend(serde_json::to_value(&pause).unwrap())).unwrap();
        prop_assert_eq!(read, pause);
        let read: DeliveryPostponed =
            serde_json::from_value(extend(serde_json::to_value(&timer).unwrap())).unwrap();
        prop_assert_eq!(read, timer);
        for entry in entries() {
            let data = match &entry {
                RedriveEntry::Begun(it) => serde_json::to_value(it),
                RedriveEntry::Moved(it) => serde_json::to_value(it),
                RedriveEntry::Cancelled(it) => serde_json::to_value(it),
            };
            let data = extend(data.unwrap()).to_string();
            let read = RedriveEntry::decode(entry.entry_type(), data.as_bytes());
            prop_assert_eq!(read, Some(entry));
        }
    }
}
