//! What survives, and what keeps others out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use event_node::{NodeError, VerifyError, verify_store};
use eventstore::StreamState;
use tokio_util::sync::CancellationToken;

use crate::fixture::{TestNode, append, events, revisions, start};

#[tokio::test]
async fn a_restart_keeps_everything_and_repetitions_are_still_known() {
    let node = TestNode::start().await;
    let same = events(3);
    let first =
        append(&node.client(), "order-1", StreamState::NoStream, same.clone()).await.position;
    let node = TestNode::start_over(node.stop().await).await;
    let client = node.client();
    assert_eq!(revisions(&client, "order-1").await, [0, 1, 2]);
    let again = append(&client, "order-1", StreamState::NoStream, same).await.position;
    assert_eq!(first, again);
    node.stop().await;
}

/// File names in the data folder.
const LOG: &str = "events.log";
const MANIFEST: &str = "index.manifest";

/// The files of the index in a data folder.
fn index_files(data: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap());
    let is_of_index = |name: &str| name.starts_with("index");
    files
        .filter(|file| file.file_name().to_str().is_some_and(is_of_index))
        .map(|file| file.path())
        .collect()
}

/// Puts copies of these files in the place of the index in a data folder.
fn replace_index(data: &Path, files: &[PathBuf]) {
    for file in index_files(data) {
        fs::remove_file(file).unwrap();
    }
    for file in files {
        fs::copy(file, data.join(file.file_name().unwrap())).unwrap();
    }
}

/// What is on disk right after an answer is what a kill at that moment would leave.
#[tokio::test]
async fn an_answered_append_survives_a_kill() {
    let node = TestNode::start().await;
    let client = node.client();
    for _ in 0..20 {
        append(&client, "order-1", StreamState::Any, events(5)).await;
    }
    let image = image_of(&node);
    let survivor = TestNode::start_over(image).await;
    assert_eq!(revisions(&survivor.client(), "order-1").await.len(), 100);
    survivor.stop().await;
    node.stop().await;
}

/// A copy of the folder as it is on disk now.
fn image_of(node: &TestNode) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(node.folder()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
    }
    image
}

/// Why a node does not start over this folder.
async fn refusal(data: &Path) -> String {
    let refused = start(data, &CancellationToken::new()).await.unwrap_err();
    std::error::Error::source(&refused).unwrap().to_string()
}

/// What a kill leaves of a store with a hundred events.
async fn killed() -> tempfile::TempDir {
    let node = TestNode::start().await;
    for _ in 0..20 {
        append(&node.client(), "order-1", StreamState::Any, events(5)).await;
    }
    let image = image_of(&node);
    node.stop().await;
    image
}

/// Changes the file's bytes.
fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, &bytes).unwrap();
}

#[tokio::test]
async fn an_append_that_was_cut_off_is_removed_and_those_before_it_stay() {
    let image = killed().await;
    let log = image.path().join(LOG);
    change(&log, |bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(verify_store(image.path()).unwrap().events, 96);
    let node = TestNode::start_over(image).await;
    assert_eq!(revisions(&node.client(), "order-1").await.len(), 95);
    append(&node.client(), "order-1", StreamState::StreamRevision(94), events(1)).await;
    let folder = node.stop().await;
    assert_eq!(verify_store(folder.path()).unwrap().events, 97);
}

#[tokio::test]
async fn a_log_that_is_damaged_before_its_end_is_reported_and_not_cut_off() {
    let image = killed().await;
    let log = image.path().join(LOG);
    change(&log, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let before = fs::read(&log).unwrap();
    let reason = refusal(image.path()).await;
    assert!(reason.contains("events.log is damaged at byte"), "{reason}");
    let found = verify_store(image.path()).unwrap_err();
    assert!(matches!(found, VerifyError::Damaged { .. }), "{found}");
    assert_eq!(fs::read(&log).unwrap(), before);
}

#[tokio::test]
async fn a_second_node_on_the_folder_is_told_why_it_cannot_start() {
    let node = TestNode::start().await;
    let refused = start(node.folder(), &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, NodeError::Open(_)));
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert!(reason.contains("in use by another process"), "{reason}");
    node.stop().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = start(&file.join("data"), &CancellationToken::new()).await.unwrap_err();
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert!(reason.contains("cannot be created"), "{reason}");
}

/// A store with a thousand events that was stopped.
async fn stopped() -> tempfile::TempDir {
    let node = TestNode::start().await;
    append(&node.client(), "order-1", StreamState::NoStream, events(1_000)).await;
    let folder = node.stop().await;
    assert_eq!(verify_store(folder.path()).unwrap().events, 1_001);
    folder
}

#[tokio::test]
async fn a_log_that_is_none_any_more_is_reported_with_what_to_do() {
    let folder = stopped().await;
    change(&folder.path().join(LOG), |bytes| bytes[..100].fill(0xa5));
    let reason = refusal(folder.path()).await;
    assert!(reason.contains("events.log is damaged at byte 0"), "{reason}");
    assert!(reason.contains("restore the data folder from a backup"), "{reason}");
}

#[tokio::test]
async fn a_log_that_lost_its_end_or_all_of_it_is_reported() {
    let folder = stopped().await;
    change(&folder.path().join(LOG), |bytes| bytes.truncate(bytes.len() / 2));
    let reason = refusal(folder.path()).await;
    assert!(reason.contains("is damaged: it ends at byte"), "{reason}");
    fs::remove_file(folder.path().join(LOG)).unwrap();
    let reason = refusal(folder.path()).await;
    assert!(
        reason.contains("is missing or empty, and other files of a store are there"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_index_that_is_damaged_or_gone_is_made_anew_from_the_log() {
    let mut folder = stopped().await;
    for is_manifest in [true, false] {
        let files = index_files(folder.path());
        let harmed = files.iter().find(|file| file.ends_with(MANIFEST) == is_manifest).unwrap();
        change(harmed, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xa5;
        });
        let found = verify_store(folder.path()).unwrap_err();
        assert!(matches!(found, VerifyError::DamagedIndex { .. }), "{found}");
        let node = TestNode::start_over(folder).await;
        assert_eq!(revisions(&node.client(), "order-1").await.len(), 1_000);
        folder = node.stop().await;
        verify_store(folder.path()).unwrap();
    }
    fs::remove_file(folder.path().join(MANIFEST)).unwrap();
    let node = TestNode::start_over(folder).await;
    append(&node.client(), "order-1", StreamState::StreamRevision(999), events(1)).await;
    assert_eq!(revisions(&node.client(), "order-1").await.len(), 1_001);
    verify_store(node.stop().await.path()).unwrap();
}

#[tokio::test]
async fn an_index_that_is_harmed_while_the_node_runs_is_made_anew() {
    let node = TestNode::start_over(stopped().await).await;
    for file in index_files(node.folder()).iter().filter(|file| !file.ends_with(MANIFEST)) {
        let length = fs::metadata(file).unwrap().len();
        let opened = fs::OpenOptions::new().write(true).open(file).unwrap();
        std::os::unix::fs::FileExt::write_all_at(
            &opened,
            &vec![0xa5; usize::try_from(length).unwrap()],
            0,
        )
        .unwrap();
    }
    // A writer that took the damage for "no such stream" would begin it anew.
    append(&node.client(), "order-1", StreamState::StreamRevision(999), events(1)).await;
    assert_eq!(revisions(&node.client(), "order-1").await.len(), 1_001);
    verify_store(node.stop().await.path()).unwrap();
}

/// Restoring one part of a store alone from a backup.
#[tokio::test]
async fn an_index_that_is_older_than_its_log_or_of_another_store_is_no_harm() {
    let node = TestNode::start().await;
    append(&node.client(), "order-1", StreamState::NoStream, events(3)).await;
    let folder = node.stop().await;
    let older = tempfile::tempdir().unwrap();
    replace_index(older.path(), &index_files(folder.path()));
    let node = TestNode::start_over(folder).await;
    append(&node.client(), "order-2", StreamState::NoStream, events(4)).await;
    let folder = node.stop().await;
    let other = stopped().await;
    for index in [&older, &other] {
        replace_index(folder.path(), &index_files(index.path()));
        assert_eq!(verify_store(folder.path()).unwrap().events, 8);
        let image = tempfile::tempdir().unwrap();
        fs::copy(folder.path().join(LOG), image.path().join(LOG)).unwrap();
        replace_index(image.path(), &index_files(folder.path()));
        let node = TestNode::start_over(image).await;
        assert_eq!(revisions(&node.client(), "order-1").await.len(), 3);
        assert_eq!(revisions(&node.client(), "order-2").await.len(), 4);
        verify_store(node.stop().await.path()).unwrap();
    }
}

#[tokio::test]
async fn an_index_in_sqlite_is_removed_and_made_anew() {
    let folder = stopped().await;
    replace_index(folder.path(), &[]);
    for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        fs::write(folder.path().join(file), "of an earlier version").unwrap();
    }
    let node = TestNode::start_over(folder).await;
    assert_eq!(revisions(&node.client(), "order-1").await.len(), 1_000);
    let folder = node.stop().await;
    let names = index_files(folder.path());
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("sqlite")), "{names:?}");
    verify_store(folder.path()).unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_format_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("events.sqlite"), "").unwrap();
    let reason = refusal(folder.path()).await;
    assert!(reason.contains("has an earlier format: export it"), "{reason}");
}

#[tokio::test]
async fn verifying_finds_a_changed_byte() {
    let folder = stopped().await;
    change(&folder.path().join(LOG), |bytes| bytes[500] ^= 1);
    let found = verify_store(folder.path()).unwrap_err();
    assert!(matches!(&found, VerifyError::Damaged { findings } if !findings.is_empty()), "{found}");
}

#[tokio::test]
async fn a_store_in_use_is_not_verified() {
    let node = TestNode::start().await;
    assert!(matches!(verify_store(node.folder()), Err(VerifyError::Unavailable(_))));
    node.stop().await;
}
