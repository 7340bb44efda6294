//! What survives, and what keeps others out.

use std::fs;

use event_node::NodeError;
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
    let image = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(node.folder()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
    }
    let survivor = TestNode::start_over(image).await;
    assert_eq!(revisions(&survivor.client(), "order-1").await.len(), 100);
    survivor.stop().await;
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
