//! Every version of every event that was ever written stays decodable with the same meaning.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use domain::order::{DecodeError, EVENT_TYPES, decode, encode};
use serde_json::Value;

/// Lists the golden files, named `<type>.v<schema version>.json`.
fn list_golden_files() -> Vec<(String, u32, PathBuf)> {
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
fn golden_events_are_decoded_and_current_ones_encoded_unchanged() {
    for (event_type, version, path) in list_golden_files() {
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
fn every_event_type_has_a_golden_file_and_documentation() {
    let golden: BTreeSet<_> =
        list_golden_files().into_iter().map(|(event_type, ..)| event_type).collect();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/EVENTS.md");
    let contract = std::fs::read_to_string(contract).unwrap();
    for event_type in EVENT_TYPES {
        assert!(golden.contains(event_type), "no golden file of {event_type}");
        assert!(contract.contains(&format!("`{event_type}`")), "{event_type} is not in EVENTS.md");
    }
}

#[test]
fn undecodable_event_gives_the_cause() {
    assert!(matches!(decode("OrderLost", 1, b"{}"), Err(DecodeError::UnknownType(_))));
    let newer = decode("OrderStored", 2, b"{}");
    assert!(matches!(newer, Err(DecodeError::UnknownVersion { version: 2, .. })));
    assert!(matches!(decode("OrderStored", 1, b"{}"), Err(DecodeError::Body { .. })));
    assert!(matches!(decode("OrderStored", 1, b"\xff"), Err(DecodeError::Body { .. })));
}
