//! Durability: restarts, kills, damaged files, and a folder that is in use.

use std::{
    fs,
    path::{Path, PathBuf},
};

use event_node::{NodeError, VerifyError, verify_store};
use eventstore::StreamState;
use tokio_util::sync::CancellationToken;

use crate::fixture::{TestNode, append_events, new_events, read_revisions, start_node};

#[tokio::test]
async fn restart_keeps_events_and_recognises_repetitions() {
    let node = TestNode::start().await;
    let same = new_events(3);
    let first = append_events(&node.client(), "order-1", StreamState::NoStream, same.clone())
        .await
        .position;
    let node = TestNode::start_in(node.stop().await).await;
    let client = node.client();
    assert_eq!(read_revisions(&client, "order-1").await, [0, 1, 2]);
    let again = append_events(&client, "order-1", StreamState::NoStream, same).await.position;
    assert_eq!(first, again);
    node.stop().await;
}

/// File names in the data folder.
const LOG: &str = "events.log";
const MANIFEST: &str = "index.manifest";

/// Returns the files of the index in a data folder.
fn index_files(data: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap());
    let is_of_index = |name: &str| name.starts_with("index");
    files
        .filter(|file| file.file_name().to_str().is_some_and(is_of_index))
        .map(|file| file.path())
        .collect()
}

/// Replaces the index in a data folder by copies of these files.
fn replace_index(data: &Path, files: &[PathBuf]) {
    for file in index_files(data) {
        fs::remove_file(file).unwrap();
    }
    for file in files {
        fs::copy(file, data.join(file.file_name().unwrap())).unwrap();
    }
}

/// The files on disk right after a response are what a kill at that moment leaves.
#[tokio::test]
async fn acknowledged_append_survives_a_kill() {
    let node = TestNode::start().await;
    let client = node.client();
    for _ in 0..20 {
        append_events(&client, "order-1", StreamState::Any, new_events(5)).await;
    }
    let image = copy_folder(&node);
    let survivor = TestNode::start_in(image).await;
    assert_eq!(read_revisions(&survivor.client(), "order-1").await.len(), 100);
    survivor.stop().await;
    node.stop().await;
}

/// Copies the folder as it is on disk now.
fn copy_folder(node: &TestNode) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(node.folder()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
    }
    image
}

/// Returns why a node does not start in this folder.
async fn start_error(data: &Path) -> String {
    let refused = start_node(data, &CancellationToken::new()).await.unwrap_err();
    std::error::Error::source(&refused).unwrap().to_string()
}

/// Returns the folder that a kill leaves of a store with a hundred events.
async fn create_killed_store() -> tempfile::TempDir {
    let node = TestNode::start().await;
    for _ in 0..20 {
        append_events(&node.client(), "order-1", StreamState::Any, new_events(5)).await;
    }
    let image = copy_folder(&node);
    node.stop().await;
    image
}

/// Changes the bytes of a file.
fn change_file(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, &bytes).unwrap();
}

#[tokio::test]
async fn torn_last_append_is_removed_at_start() {
    let image = create_killed_store().await;
    let log = image.path().join(LOG);
    change_file(&log, |bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(verify_store(image.path()).unwrap().events, 96);
    let node = TestNode::start_in(image).await;
    assert_eq!(read_revisions(&node.client(), "order-1").await.len(), 95);
    append_events(&node.client(), "order-1", StreamState::StreamRevision(94), new_events(1)).await;
    let folder = node.stop().await;
    assert_eq!(verify_store(folder.path()).unwrap().events, 97);
}

#[tokio::test]
async fn damage_inside_the_log_prevents_the_start() {
    let image = create_killed_store().await;
    let log = image.path().join(LOG);
    change_file(&log, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let before = fs::read(&log).unwrap();
    let reason = start_error(image.path()).await;
    assert!(reason.contains("events.log is damaged at byte"), "{reason}");
    let found = verify_store(image.path()).unwrap_err();
    assert!(matches!(found, VerifyError::Damaged { .. }), "{found}");
    assert_eq!(fs::read(&log).unwrap(), before);
}

#[tokio::test]
async fn second_node_in_the_folder_does_not_start() {
    let node = TestNode::start().await;
    let refused = start_node(node.folder(), &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, NodeError::Open(_)));
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert!(reason.contains("in use by another process"), "{reason}");
    node.stop().await;
}

#[tokio::test]
async fn folder_that_cannot_be_created_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = start_node(&file.join("data"), &CancellationToken::new()).await.unwrap_err();
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert!(reason.contains("cannot be created"), "{reason}");
}

/// Returns the folder of a stopped store with a thousand events.
async fn create_stopped_store() -> tempfile::TempDir {
    let node = TestNode::start().await;
    append_events(&node.client(), "order-1", StreamState::NoStream, new_events(1_000)).await;
    let folder = node.stop().await;
    assert_eq!(verify_store(folder.path()).unwrap().events, 1_001);
    folder
}

#[tokio::test]
async fn overwritten_log_is_reported_with_advice() {
    let folder = create_stopped_store().await;
    change_file(&folder.path().join(LOG), |bytes| bytes[..100].fill(0xa5));
    let reason = start_error(folder.path()).await;
    assert!(reason.contains("events.log is damaged at byte 0"), "{reason}");
    assert!(reason.contains("restore the data folder from a backup"), "{reason}");
}

#[tokio::test]
async fn truncated_or_missing_log_is_reported() {
    let folder = create_stopped_store().await;
    change_file(&folder.path().join(LOG), |bytes| bytes.truncate(bytes.len() / 2));
    let reason = start_error(folder.path()).await;
    assert!(reason.contains("is damaged: it ends at byte"), "{reason}");
    fs::remove_file(folder.path().join(LOG)).unwrap();
    let reason = start_error(folder.path()).await;
    assert!(
        reason.contains("is missing or empty, and other files of a store are there"),
        "{reason}"
    );
}

#[tokio::test]
async fn damaged_or_missing_index_is_rebuilt_at_start() {
    let mut folder = create_stopped_store().await;
    for is_manifest in [true, false] {
        let files = index_files(folder.path());
        let damaged = files.iter().find(|file| file.ends_with(MANIFEST) == is_manifest).unwrap();
        change_file(damaged, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xa5;
        });
        let found = verify_store(folder.path()).unwrap_err();
        assert!(matches!(found, VerifyError::DamagedIndex { .. }), "{found}");
        let node = TestNode::start_in(folder).await;
        assert_eq!(read_revisions(&node.client(), "order-1").await.len(), 1_000);
        folder = node.stop().await;
        verify_store(folder.path()).unwrap();
    }
    fs::remove_file(folder.path().join(MANIFEST)).unwrap();
    let node = TestNode::start_in(folder).await;
    append_events(&node.client(), "order-1", StreamState::StreamRevision(999), new_events(1)).await;
    assert_eq!(read_revisions(&node.client(), "order-1").await.len(), 1_001);
    verify_store(node.stop().await.path()).unwrap();
}

#[tokio::test]
async fn index_damaged_at_run_time_is_rebuilt() {
    let node = TestNode::start_in(create_stopped_store().await).await;
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
    // If the damage counted as a missing stream, the append would start a new stream.
    append_events(&node.client(), "order-1", StreamState::StreamRevision(999), new_events(1)).await;
    assert_eq!(read_revisions(&node.client(), "order-1").await.len(), 1_001);
    verify_store(node.stop().await.path()).unwrap();
}

/// An operator restores only the index or only the log from a backup.
#[tokio::test]
async fn stale_or_foreign_index_is_rebuilt() {
    let node = TestNode::start().await;
    append_events(&node.client(), "order-1", StreamState::NoStream, new_events(3)).await;
    let folder = node.stop().await;
    let older = tempfile::tempdir().unwrap();
    replace_index(older.path(), &index_files(folder.path()));
    let node = TestNode::start_in(folder).await;
    append_events(&node.client(), "order-2", StreamState::NoStream, new_events(4)).await;
    let folder = node.stop().await;
    let other = create_stopped_store().await;
    for index in [&older, &other] {
        replace_index(folder.path(), &index_files(index.path()));
        assert_eq!(verify_store(folder.path()).unwrap().events, 8);
        let image = tempfile::tempdir().unwrap();
        fs::copy(folder.path().join(LOG), image.path().join(LOG)).unwrap();
        replace_index(image.path(), &index_files(folder.path()));
        let node = TestNode::start_in(image).await;
        assert_eq!(read_revisions(&node.client(), "order-1").await.len(), 3);
        assert_eq!(read_revisions(&node.client(), "order-2").await.len(), 4);
        verify_store(node.stop().await.path()).unwrap();
    }
}

#[tokio::test]
async fn sqlite_index_is_replaced() {
    let folder = create_stopped_store().await;
    replace_index(folder.path(), &[]);
    for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        fs::write(folder.path().join(file), "of an earlier version").unwrap();
    }
    let node = TestNode::start_in(folder).await;
    assert_eq!(read_revisions(&node.client(), "order-1").await.len(), 1_000);
    let folder = node.stop().await;
    let names = index_files(folder.path());
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("sqlite")), "{names:?}");
    verify_store(folder.path()).unwrap();
}

#[tokio::test]
async fn store_of_the_first_format_is_rejected_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("events.sqlite"), "").unwrap();
    let reason = start_error(folder.path()).await;
    assert!(reason.contains("has an earlier format: export it"), "{reason}");
}

#[tokio::test]
async fn verify_finds_a_changed_byte() {
    let folder = create_stopped_store().await;
    change_file(&folder.path().join(LOG), |bytes| bytes[500] ^= 1);
    let found = verify_store(folder.path()).unwrap_err();
    assert!(matches!(&found, VerifyError::Damaged { findings } if !findings.is_empty()), "{found}");
}

#[tokio::test]
async fn store_in_use_is_not_verified() {
    let node = TestNode::start().await;
    assert!(matches!(verify_store(node.folder()), Err(VerifyError::Unavailable(_))));
    node.stop().await;
}
