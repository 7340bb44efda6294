//! What survives, and what keeps others out.

use std::fs;

use event_node::{NodeError, VerifyError, verify};
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

#[tokio::test]
async fn a_write_ahead_log_that_is_damaged_inside_is_reported_and_not_cut_off() {
    let node = TestNode::start().await;
    let client = node.client();
    for _ in 0..20 {
        append(&client, "order-1", StreamState::Any, events(5)).await;
    }
    let image = image_of(&node);
    let file = image.path().join("events.sqlite-wal");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let refused = start(image.path(), &CancellationToken::new()).await.unwrap_err();
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert!(reason.contains("events.sqlite-wal is damaged before its end"), "{reason}");
    let found = verify(image.path()).unwrap_err();
    assert!(matches!(found, VerifyError::Damaged { .. }), "{found}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    node.stop().await;
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

/// Overwrites part of the database of a store that has events.
async fn damaged(from: impl FnOnce(usize) -> std::ops::Range<usize>) -> tempfile::TempDir {
    let node = TestNode::start().await;
    append(&node.client(), "order-1", StreamState::NoStream, events(1_000)).await;
    let folder = node.stop().await;
    assert_eq!(verify(folder.path()).unwrap().events, 1_001);
    let file = folder.path().join("events.sqlite");
    let mut bytes = fs::read(&file).unwrap();
    let range = from(bytes.len());
    bytes[range].fill(0xa5);
    fs::write(&file, bytes).unwrap();
    folder
}

#[tokio::test]
async fn a_database_that_is_none_any_more_is_reported_with_what_to_do() {
    let folder = damaged(|_| 0..4_096).await;
    let refused = start(folder.path(), &CancellationToken::new()).await.unwrap_err();
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert!(reason.contains("events.sqlite is damaged: restore"), "{reason}");
}

#[tokio::test]
async fn a_database_that_was_cut_off_is_reported() {
    let folder = damaged(|_| 0..0).await;
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("events.sqlite"));
    file.unwrap().set_len(5 * 4_096).unwrap();
    let refused = start(folder.path(), &CancellationToken::new()).await.unwrap_err();
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert!(reason.contains("is damaged: restore"), "{reason}");
}

#[tokio::test]
async fn verifying_finds_a_damaged_page() {
    let folder = damaged(|len| len / 2 / 4_096 * 4_096..len / 2 / 4_096 * 4_096 + 4_096).await;
    let found = verify(folder.path()).unwrap_err();
    assert!(matches!(&found, VerifyError::Damaged { findings } if !findings.is_empty()), "{found}");
}

#[tokio::test]
async fn a_store_in_use_is_not_verified() {
    let node = TestNode::start().await;
    assert!(matches!(verify(node.folder()), Err(VerifyError::Unavailable(_))));
    node.stop().await;
}
