//! A store copied to another through the client protocol.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use event_log::{Copied, CopyError, Expected};
use eventstore::{
    AppendToStreamOptions, Client, DeleteStreamOptions, EventData, StreamMetadataBuilder,
    TombstoneStreamOptions,
};
use testkit::store::{Store, cause, placed};
use tokio::sync::oneshot;
use uuid::Uuid;

async fn copied(source: &Store, target: &Store) -> Result<Copied, CopyError> {
    source.log.copy_to(&target.log, |_| {}).await
}

#[tokio::test]
async fn every_event_arrives_with_its_id_metadata_and_revision() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    let mut ids = Vec::new();
    for number in 1..=20 {
        ids.push(source.place(number).await);
    }
    let first = copied(&source, &target).await.unwrap();
    assert_eq!(first, Copied { n_events: 80, n_copied: 80 });
    for id in ids {
        let one = source.log.history(id).await.unwrap();
        let other = target.log.history(id).await.unwrap();
        let shown = |it: &event_log::LoggedEvent| {
            (it.event_id, it.revision, it.event_type.clone(), it.data.clone(), it.metadata.clone())
        };
        let one: Vec<_> = one.iter().map(shown).collect();
        let other: Vec<_> = other.iter().map(shown).collect();
        assert_eq!(one, other);
    }
}

#[tokio::test]
async fn copy_made_again_goes_on_where_it_stopped() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    source.place(1).await;
    copied(&source, &target).await.unwrap();
    source.place(2).await;
    let mut n_reports = 0;
    let again = source.log.copy_to(&target.log, |_| n_reports += 1).await.unwrap();
    assert_eq!(again, Copied { n_events: 8, n_copied: 4 });
    let check = copied(&source, &target).await.unwrap();
    assert_eq!(check, Copied { n_events: 8, n_copied: 0 });
}

#[tokio::test]
async fn copy_that_is_cut_off_in_the_middle_goes_on_behind_what_arrived() {
    const ORDERS: u128 = 300;
    let (source, mut target) = (Store::start_embedded().await, Store::start_embedded().await);
    for number in 1..=ORDERS {
        source.place(number).await;
    }
    let (begun, first_report) = oneshot::channel();
    let mut begun = Some(begun);
    let copy = source.log.copy_to(&target.log, |_| {
        if let Some(begun) = begun.take() {
            begun.send(()).unwrap();
        }
    });
    tokio::select! {
        biased;
        _ = first_report => {}
        ended = copy => panic!("not cut off: {ended:?}"),
    }
    target.stop().await;
    target.start_again().await;
    let rest = copied(&source, &target).await.unwrap();
    assert_eq!(rest.n_events, 1_200);
    assert!((1..1_200).contains(&rest.n_copied), "{rest:?}");
    assert_eq!(copied(&source, &target).await.unwrap(), Copied { n_events: 1_200, n_copied: 0 });
}

#[tokio::test]
async fn target_that_holds_something_else_is_refused_by_name() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    target.place(9).await;
    let refused = copied(&source, &target).await.unwrap_err();
    assert!(matches!(refused, CopyError::Unexpected { revision: 0, .. }), "{refused}");
    source.place(1).await;
    let refused = copied(&source, &target).await.unwrap_err();
    assert!(matches!(refused, CopyError::Differs { revision: 0, .. }), "{refused}");
}

#[tokio::test]
async fn same_stream_with_another_end_is_found() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    let id = source.place(1).await;
    target.place(1).await;
    assert_eq!(copied(&source, &target).await.unwrap().n_copied, 0, "equal so far");
    let events = placed(id);
    let expected = Expected::Revision(3);
    for (store, command) in [(&source, 2), (&target, 3)] {
        store.log.append(id, expected, &events[..1], &cause(command)).await.unwrap();
    }
    let refused = copied(&source, &target).await.unwrap_err();
    assert!(matches!(refused, CopyError::Differs { revision: 4, .. }), "{refused}");
}

#[tokio::test]
async fn group_and_its_parked_messages_stay_behind() {
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
    while source.log.group_stats("fulfillment").await.unwrap().parked == 0 {
        tokio::task::yield_now().await;
    }
    let all = copied(&source, &target).await.unwrap();
    assert_eq!(all, Copied { n_events: 4, n_copied: 4 });
}

/// What other programs may have in the store: bytes that are no JSON, metadata of streams, and
/// streams that were deleted, begun again, or ended for ever.
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
async fn deleted_recreated_and_ended_streams_arrive_as_they_are() {
    let (source, target) = (Store::start_embedded().await, Store::start_embedded().await);
    let client = Client::new(source.url().parse().unwrap()).unwrap();
    append_of_other_programs(&client).await;
    let first = copied(&source, &target).await.unwrap();
    let again = copied(&source, &target).await.unwrap();
    assert_eq!((again.n_events, again.n_copied), (first.n_events, 0));
    // Five streams' events, their metadata, and the tombstone.
    assert!(first.n_events >= 10, "{first:?}");
}
