//! Every version of every event ever written must stay readable, and mean the same.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use domain::order::{DecodeError, EVENT_TYPES, decode, encode};
use serde_json::Value;

/// The stored events, as `<type>.v<schema version>.json`.
fn corpus() -> Vec<(String, u32, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let (event_type, rest) = name.split_once(".v").unwrap();
            let version = rest.strip_suffix(".json").unwrap().parse().unwrap();
            (event_type.to_owned(), version, path)
        })
        .collect()
}

#[test]
fn every_stored_event_is_readable_and_today_s_are_written_as_they_were() {
    for (event_type, version, path) in corpus() {
        let bytes = std::fs::read(&path).unwrap();
        let event = decode(&event_type, version, &bytes)
            .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        let encoded = encode(&event).unwrap();
        if encoded.schema_version == version {
            let stored: Value = serde_json::from_slice(&bytes).unwrap();
            let written: Value = serde_json::from_str(encoded.data.get()).unwrap();
            assert_eq!(written, stored, "{}", path.display());
        }
    }
}

#[test]
fn every_event_type_has_a_golden_file_and_a_row_in_the_contract() {
    let golden: BTreeSet<_> = corpus().into_iter().map(|(event_type, ..)| event_type).collect();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/EVENTS.md");
    let contract = std::fs::read_to_string(contract).unwrap();
    for event_type in EVENT_TYPES {
        assert!(golden.contains(event_type), "no golden file of {event_type}");
        assert!(contract.contains(&format!("`{event_type}`")), "{event_type} is not in EVENTS.md");
    }
}

#[test]
fn fields_that_are_not_known_are_ignored() {
    let data = br#"{"order_id":"018f2d6e-0000-7000-8000-000000000001","stored_at":"2026-01-02T03:04:05Z","later":1}"#;
    assert!(decode("OrderStored", 1, data).is_ok());
}

#[test]
fn what_cannot_be_read_is_named() {
    assert!(matches!(decode("OrderLost", 1, b"{}"), Err(DecodeError::UnknownType(_))));
    let newer = decode("OrderStored", 2, b"{}");
    assert!(matches!(newer, Err(DecodeError::UnknownVersion { version: 2, .. })));
    assert!(matches!(decode("OrderStored", 1, b"{}"), Err(DecodeError::Body { .. })));
    assert!(matches!(decode("OrderStored", 1, b"\xff"), Err(DecodeError::Body { .. })));
}
