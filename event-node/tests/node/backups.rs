//! Backups, restores, and salvage of damaged stores.

use std::{fs, path::Path};

use event_node::{
    CopyError, backup_store, backup_to_stream, restore_from_stream, restore_store, salvage_store,
    verify_store,
};
use eventstore::{EventData, ReadStreamOptions, StreamState};
use tempfile::TempDir;

use crate::fixture::{TestNode, append_events, new_events, read_revisions};

const LOG: &str = "events.log";

async fn start_with_orders(count: u64) -> TestNode {
    let node = TestNode::start().await;
    let client = node.client();
    for order in 0..count {
        append_events(&client, &format!("order-{order}"), StreamState::NoStream, new_events(3))
            .await;
    }
    node
}

async fn assert_has_orders(folder: TempDir, count: u64) -> TempDir {
    let node = TestNode::start_in(folder).await;
    let client = node.client();
    for order in 0..count {
        assert_eq!(read_revisions(&client, &format!("order-{order}")).await, [0, 1, 2]);
    }
    append_events(&client, "order-0", StreamState::StreamRevision(2), new_events(1)).await;
    let folder = node.stop().await;
    verify_store(folder.path()).unwrap();
    folder
}

#[tokio::test]
async fn backup_of_a_running_node_is_restored() {
    let node = start_with_orders(20).await;
    let copy = tempfile::tempdir().unwrap();
    let backed_up = backup_store(node.folder(), copy.path(), |_| {}).unwrap();
    assert_eq!(backed_up.copied_bytes, backed_up.total_bytes);
    append_events(&node.client(), "later", StreamState::NoStream, new_events(1)).await;
    verify_store(copy.path()).unwrap();

    let restored_to = tempfile::tempdir().unwrap();
    let restored = restore_store(copy.path(), restored_to.path(), |_| {}).unwrap();
    assert_eq!(restored.position, backed_up.position);
    let folder = assert_has_orders(restored_to, 20).await;
    let restored_node = TestNode::start_in(folder).await;
    let client = restored_node.client();
    let mut read = client.read_stream("later", &ReadStreamOptions::default()).await.unwrap();
    let missing = read.next().await.unwrap_err();
    assert!(matches!(missing, eventstore::Error::ResourceNotFound), "{missing}");
    restored_node.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn backup_through_a_stream_is_restored() {
    let node = start_with_orders(20).await;
    let mut stream = Vec::new();
    backup_to_stream(node.folder(), &mut stream, |_| {}).unwrap();
    node.stop().await;
    let restored_to = tempfile::tempdir().unwrap();
    restore_from_stream(&stream[..], restored_to.path(), |_| {}).unwrap();
    assert_has_orders(restored_to, 20).await;
}

#[tokio::test]
async fn truncated_or_damaged_stream_is_rejected() {
    let node = start_with_orders(3).await;
    let mut stream = Vec::new();
    backup_to_stream(node.folder(), &mut stream, |_| {}).unwrap();
    node.stop().await;
    for length in [0, 10, 40, stream.len() / 2, stream.len() - 1] {
        let to = tempfile::tempdir().unwrap();
        let refused = restore_from_stream(&stream[..length], to.path(), |_| {}).unwrap_err();
        assert!(matches!(refused, CopyError::TruncatedStream { .. }), "{length}: {refused}");
        assert!(!to.path().join(LOG).exists());
        // The same folder accepts a complete stream afterwards.
        restore_from_stream(&stream[..], to.path(), |_| {}).unwrap();
        verify_store(to.path()).unwrap();
    }
    for at in [3, 20, 60, stream.len() / 2, stream.len() - 5] {
        let mut damaged = stream.clone();
        damaged[at] ^= 0x10;
        let to = tempfile::tempdir().unwrap();
        let refused = restore_from_stream(&damaged[..], to.path(), |_| {}).unwrap_err();
        let is_found =
            matches!(refused, CopyError::DamagedStream { .. } | CopyError::TruncatedStream { .. });
        assert!(is_found, "{at}: {refused}");
    }
}

#[tokio::test]
async fn restored_log_replaces_newer_index() {
    let node = start_with_orders(5).await;
    let copy = tempfile::tempdir().unwrap();
    backup_store(node.folder(), copy.path(), |_| {}).unwrap();
    append_events(&node.client(), "order-0", StreamState::Any, new_events(10)).await;
    let folder = node.stop().await;
    // An operator copies the old log over the new one by hand and leaves the newer index there.
    fs::copy(copy.path().join(LOG), folder.path().join(LOG)).unwrap();
    assert_has_orders(folder, 5).await;
}

#[tokio::test]
async fn restore_keeps_existing_store_and_removes_stale_index() {
    let node = start_with_orders(2).await;
    let copy = tempfile::tempdir().unwrap();
    backup_store(node.folder(), copy.path(), |_| {}).unwrap();
    let folder = node.stop().await;
    let refused = restore_store(copy.path(), folder.path(), |_| {}).unwrap_err();
    assert!(matches!(refused, CopyError::NotEmpty { .. }), "{refused}");
    fs::remove_file(folder.path().join(LOG)).unwrap();
    restore_store(copy.path(), folder.path(), |_| {}).unwrap();
    assert_has_orders(folder, 2).await;
}

#[tokio::test]
async fn second_backup_is_incremental_and_rejects_another_store() {
    let node = start_with_orders(2).await;
    let copy = tempfile::tempdir().unwrap();
    backup_store(node.folder(), copy.path(), |_| {}).unwrap();
    append_events(&node.client(), "order-9", StreamState::NoStream, new_events(3)).await;
    let second = backup_store(node.folder(), copy.path(), |_| {}).unwrap();
    node.stop().await;
    let restored_to = tempfile::tempdir().unwrap();
    assert_eq!(
        restore_store(copy.path(), restored_to.path(), |_| {}).unwrap().position,
        second.position
    );
    let other = start_with_orders(1).await;
    let refused = backup_store(other.folder(), copy.path(), |_| {}).unwrap_err();
    assert!(matches!(refused, CopyError::OtherStore { .. }), "{refused}");
    other.stop().await;
}

/// Returns a store whose log has one damaged entry: the append to `order-2`.
async fn create_damaged_store(has_index: bool) -> TempDir {
    let node = TestNode::start().await;
    let client = node.client();
    for order in ["order-1", "order-2", "order-1", "order-3", "order-1"] {
        let event = EventData::binary("e", order.as_bytes().repeat(100).into());
        append_events(&client, order, StreamState::Any, [event]).await;
    }
    let folder = node.stop().await;
    if !has_index {
        remove_index(folder.path());
    }
    let file = folder.path().join(LOG);
    let mut bytes = fs::read(&file).unwrap();
    let needle = b"order-2order-2";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at..at + 300].fill(0);
    fs::write(&file, bytes).unwrap();
    folder
}

fn remove_index(data: &Path) {
    for file in fs::read_dir(data).unwrap().map(|file| file.unwrap()) {
        if file.file_name().to_string_lossy().starts_with("index") {
            fs::remove_file(file.path()).unwrap();
        }
    }
}

#[tokio::test]
async fn salvage_keeps_valid_entries_and_lists_lost_ones() {
    let folder = create_damaged_store(true).await;
    verify_store(folder.path()).unwrap_err();
    let to = tempfile::tempdir().unwrap();
    let salvaged = salvage_store(folder.path(), to.path(), |_| {}).unwrap();
    assert!(salvaged.is_complete);
    assert_eq!(salvaged.lost_ranges.len(), 1);
    assert_eq!(salvaged.lost_ranges[0].last_position, Some(salvaged.lost_ranges[0].first_position));
    let lost: Vec<_> = salvaged
        .lost_revisions
        .iter()
        .map(|lost| (lost.stream.as_str(), lost.first, lost.last))
        .collect();
    assert_eq!(lost, [("order-2", 0, 0)]);
    verify_store(to.path()).unwrap();
    let node = TestNode::start_in(to).await;
    assert_eq!(read_revisions(&node.client(), "order-1").await, [0, 1, 2]);
    assert_eq!(read_revisions(&node.client(), "order-3").await, [0]);
    append_events(&node.client(), "order-1", StreamState::StreamRevision(2), new_events(1)).await;
    verify_store(node.stop().await.path()).unwrap();
}

#[tokio::test]
async fn salvage_without_index_reports_an_incomplete_list() {
    let folder = create_damaged_store(false).await;
    let to = tempfile::tempdir().unwrap();
    let salvaged = salvage_store(folder.path(), to.path(), |_| {}).unwrap();
    assert!(!salvaged.is_complete);
    assert_eq!(salvaged.lost_ranges.len(), 1);
    verify_store(to.path()).unwrap();
}
