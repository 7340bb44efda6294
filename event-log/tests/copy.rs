//! Copies of a store through the client protocol.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use event_log::{CopyError, CopySummary, Expected};
use eventstore::{
    AppendToStreamOptions, Client, DeleteStreamOptions, EventData, StreamMetadataBuilder,
    TombstoneStreamOptions,
};
use testkit::store::{Store, cause, placed};
use tokio::sync::oneshot;
use uuid::Uuid;

async fn copy(source: &Store, target: &Store) -> Result<CopySummary, CopyError> {
    source.log.store().copy_to(target.log.store(), |_| {}).await
}

#[tokio::test]
async fn copy_preserves_ids_metadata_and_revisions() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    let mut ids = Vec::new();
    for number in 1..=20 {
        ids.push(source.place(number).await);
    }
    let first = copy(&source, &target).await.unwrap();
    assert_eq!(first, CopySummary { n_events: 80, n_copied: 80 });
    for id in ids {
        let one = source.log.read_history(id).await.unwrap();
        let other = target.log.read_history(id).await.unwrap();
        let shown = |it: &event_log::LoggedEvent| {
            (it.event_id, it.revision, it.event_type.clone(), it.data.clone(), it.metadata.clone())
        };
        let one: Vec<_> = one.iter().map(shown).collect();
        let other: Vec<_> = other.iter().map(shown).collect();
        assert_eq!(one, other);
    }
}

#[tokio::test]
async fn repeated_copy_appends_new_events_only() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    source.place(1).await;
    copy(&source, &target).await.unwrap();
    source.place(2).await;
    let mut n_reports = 0;
    let again = source.log.store().copy_to(target.log.store(), |_| n_reports += 1).await.unwrap();
    assert_eq!(again, CopySummary { n_events: 8, n_copied: 4 });
    let check = copy(&source, &target).await.unwrap();
    assert_eq!(check, CopySummary { n_events: 8, n_copied: 0 });
}

#[tokio::test]
async fn interrupted_copy_resumes_behind_copied_events() {
    const ORDERS: u128 = 300;
    let (source, mut target) = (Store::start_embedded().await, Store::start_embedded().await);
    for number in 1..=ORDERS {
        source.place(number).await;
    }
    let (begun, first_report) = oneshot::channel();
    let mut begun = Some(begun);
    let copying = source.log.store().copy_to(target.log.store(), |_| {
        if let Some(begun) = begun.take() {
            begun.send(()).unwrap();
        }
    });
    tokio::select! {
        biased;
        _ = first_report => {}
        ended = copying => panic!("not cut off: {ended:?}"),
    }
    target.stop().await;
    target.start_again().await;
    let rest = copy(&source, &target).await.unwrap();
    assert_eq!(rest.n_events, 1_200);
    assert!((1..1_200).contains(&rest.n_copied), "{rest:?}");
    assert_eq!(copy(&source, &target).await.unwrap(), CopySummary { n_events: 1_200, n_copied: 0 });
}

#[tokio::test]
async fn target_with_other_events_is_refused() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    target.place(9).await;
    let refused = copy(&source, &target).await.unwrap_err();
    assert!(matches!(refused, CopyError::Unexpected { revision: 0, .. }), "{refused}");
    source.place(1).await;
    let refused = copy(&source, &target).await.unwrap_err();
    assert!(matches!(refused, CopyError::Differs { revision: 0, .. }), "{refused}");
}

#[tokio::test]
async fn diverging_end_of_a_stream_is_found() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    let id = source.place(1).await;
    target.place(1).await;
    assert_eq!(copy(&source, &target).await.unwrap().n_copied, 0, "equal so far");
    let events = placed(id);
    let expected = Expected::Revision(3);
    for (store, command) in [(&source, 2), (&target, 3)] {
        store.log.append(id, expected, &events[..1], &cause(command)).await.unwrap();
    }
    let refused = copy(&source, &target).await.unwrap_err();
    assert!(matches!(refused, CopyError::Differs { revision: 4, .. }), "{refused}");
}

#[tokio::test]
async fn groups_and_parked_messages_are_not_copied() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    source.place(1).await;
    let settings = event_log::GroupSettings {
        name: "fulfillment".to_owned(),
        event_type: "OrderQueued".to_owned(),
        message_timeout: std::time::Duration::from_secs(30),
        max_retry_count: 1,
        buffer_size: 1,
        silence_limit: std::time::Duration::from_secs(30),
        n_silences: tokio::sync::watch::Sender::default(),
    };
    let mut group = source.log.join_group(settings);
    let delivery = group.next().await;
    group.park(delivery.id, "no use".to_owned());
    while source.log.store().group_stats("fulfillment").await.unwrap().parked == 0 {
        tokio::task::yield_now().await;
    }
    let all = copy(&source, &target).await.unwrap();
    assert_eq!(all, CopySummary { n_events: 4, n_copied: 4 });
}

/// Appends content of other programs: bytes that are not JSON, stream metadata, and streams that were
/// deleted, recreated or tombstoned.
async fn append_of_other_programs(client: &Client) {
    let append = async |stream: &str, number: u128| {
        let event = EventData::binary("Bytes", vec![0, 0xff, 7].into()).id(Uuid::from_u128(number));
        client.append_to_stream(stream, &AppendToStreamOptions::default(), event).await.unwrap();
    };
    append("begun-again", 1).await;
    client.delete_stream("begun-again", &DeleteStreamOptions::default()).await.unwrap();
    append("begun-again", 2).await;
    append("deleted", 3).await;
    client.delete_stream("deleted", &DeleteStreamOptions::default()).await.unwrap();
    append("ended", 4).await;
    client.tombstone_stream("ended", &TombstoneStreamOptions::default()).await.unwrap();
    append("described", 5).await;
    let metadata = StreamMetadataBuilder::new().max_count(7).build();
    let options = AppendToStreamOptions::default();
    client.set_stream_metadata("described", &options, &metadata).await.unwrap();
}

#[tokio::test]
async fn deleted_recreated_and_tombstoned_streams_are_copied() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    let client = Client::new(source.url().parse().unwrap()).unwrap();
    append_of_other_programs(&client).await;
    let first = copy(&source, &target).await.unwrap();
    let again = copy(&source, &target).await.unwrap();
    assert_eq!((again.n_events, again.n_copied), (first.n_events, 0));
    // The events of five streams, their metadata, and the tombstone.
    assert!(first.n_events >= 10, "{first:?}");
}
