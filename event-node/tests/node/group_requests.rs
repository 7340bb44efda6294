//! Requests about groups: exact error statuses, and statistics that clients show.

use conformance::protocol::event_store::client::{
    Empty, Position, StreamIdentifier,
    persistent_subscriptions::{
        AllOptions, CreateReq, DeleteReq, GetInfoReq, ListReq, ReplayParkedReq, Settings,
        StreamOptions, SubscriptionInfo, UpdateReq, all_options, create_req, delete_req,
        get_info_req, list_req, persistent_subscriptions_client::PersistentSubscriptionsClient,
        replay_parked_req, stream_options, update_req,
    },
};
use eventstore::StreamState;
use tonic::{Code, transport::Channel};

use crate::fixture::{TestNode, append_events, new_events, within_deadline};

type Groups = PersistentSubscriptionsClient<Channel>;

fn identifier() -> StreamIdentifier {
    StreamIdentifier { stream_name: "order-1".into() }
}

fn settings() -> Settings {
    Settings { read_batch_size: 20, history_buffer_size: 500, ..Settings::default() }
}

fn source_stream(revision: u64) -> create_req::options::Source {
    create_req::options::Source::Stream(StreamOptions {
        stream_identifier: Some(identifier()),
        revision_option: Some(stream_options::RevisionOption::Revision(revision)),
    })
}

fn source_all(position: u64) -> AllOptions {
    let position = Position { commit_position: position, prepare_position: position };
    AllOptions {
        position_option: Some(all_options::PositionOption::Position(position)),
        filter_option: Some(all_options::FilterOption::NoFilter(Empty {})),
    }
}

/// Creates the group `workers`. Returns code and reason of the status.
async fn create_status(
    groups: &mut Groups,
    settings: Settings,
    source: create_req::options::Source,
) -> (Code, String) {
    let options = create_req::Options {
        stream_identifier: None,
        group_name: "workers".to_owned(),
        settings: Some(settings),
        source: Some(source),
    };
    match groups.create(CreateReq { options: Some(options) }).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => {
            let reason = status.metadata().get("reason").map(|reason| reason.to_str().unwrap());
            (status.code(), reason.unwrap_or_default().to_owned())
        }
    }
}

#[tokio::test]
async fn invalid_group_fails_with_the_first_of_its_errors() {
    let node = TestNode::start().await;
    let mut groups = Groups::new(node.channel().await);
    let nowhere = create_req::options::Source::Stream(StreamOptions {
        stream_identifier: Some(StreamIdentifier::default()),
        revision_option: Some(stream_options::RevisionOption::Start(Empty {})),
    });
    let bad_name = (Code::Internal, "Bad stream name.".to_owned());
    assert_eq!(create_status(&mut groups, settings(), nowhere).await, bad_name);
    let no_strategy = Settings { consumer_strategy: "Lottery".to_owned(), ..settings() };
    let bad_sizes = Settings { read_batch_size: 500, ..settings() };
    let beyond = || create_req::options::Source::All(source_all(1_000));

    let everything = Settings { consumer_strategy: "Lottery".to_owned(), ..bad_sizes.clone() };
    let unknown = (Code::Internal, "Consumer strategy Lottery does not exist.".to_owned());
    assert_eq!(create_status(&mut groups, everything, beyond()).await, unknown);
    assert_eq!(create_status(&mut groups, no_strategy.clone(), source_stream(0)).await, unknown);
    let (code, reason) = create_status(&mut groups, bad_sizes.clone(), beyond()).await;
    assert_eq!(code, Code::Internal);
    assert!(reason.starts_with("Invalid Start From position: commit position must be"), "{reason}");
    let (code, reason) = create_status(&mut groups, bad_sizes.clone(), source_stream(0)).await;
    assert_eq!(code, Code::Internal);
    assert!(
        reason.ends_with(
            "(Parameter 'ReadBatchSize may not be greater than or equal to BufferSize')"
        )
    );

    assert_eq!(create_status(&mut groups, settings(), source_stream(0)).await.0, Code::Ok);
    assert_eq!(
        create_status(&mut groups, bad_sizes, source_stream(0)).await.0,
        Code::AlreadyExists
    );
    assert_eq!(create_status(&mut groups, no_strategy.clone(), source_stream(0)).await, unknown);

    let update = update_req::Options {
        group_name: "nobody".to_owned(),
        settings: Some(no_strategy),
        source: Some(update_req::options::Source::All(source_all(1_000))),
        ..update_req::Options::default()
    };
    let absent = groups.update(UpdateReq { options: Some(update) }).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    assert_eq!(absent.message(), "Subscription group nobody on stream $all does not exist.");
    node.stop().await;
}

#[tokio::test]
async fn group_without_start_is_invalid_argument() {
    let node = TestNode::start().await;
    let mut groups = Groups::new(node.channel().await);
    let over_stream =
        StreamOptions { stream_identifier: Some(identifier()), revision_option: None };
    let over_stream = create_req::options::Source::Stream(over_stream);
    let refused = create_status(&mut groups, settings(), over_stream).await;
    assert_eq!(refused.0, Code::InvalidArgument);
    let over_all = AllOptions { position_option: None, ..source_all(0) };
    let over_all = create_req::options::Source::All(over_all);
    assert_eq!(create_status(&mut groups, settings(), over_all).await.0, Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn unknown_strategy_is_named_by_its_number() {
    let node = TestNode::start().await;
    let mut groups = Groups::new(node.channel().await);
    let unknown = Settings { named_consumer_strategy: 9, ..settings() };
    let (code, reason) = create_status(&mut groups, unknown, source_stream(0)).await;
    assert_eq!((code, &*reason), (Code::Internal, "Consumer strategy 9 does not exist."));
    node.stop().await;
}

#[tokio::test]
async fn replay_without_limit_is_rejected() {
    use replay_parked_req::{Options, options};
    let node = TestNode::start().await;
    let mut groups = Groups::new(node.channel().await);
    assert_eq!(create_status(&mut groups, settings(), source_stream(0)).await.0, Code::Ok);
    let request = |stop_at_option| ReplayParkedReq {
        options: Some(Options {
            group_name: "workers".to_owned(),
            source: Some(options::Source::StreamIdentifier(identifier())),
            stop_at_option,
        }),
    };
    let refused = groups.replay_parked(request(None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    for limit in [options::StopAtOption::StopAt(0), options::StopAtOption::NoLimit(Empty {})] {
        groups.replay_parked(request(Some(limit))).await.unwrap();
    }
    node.stop().await;
}

#[tokio::test]
async fn empty_group_name_is_valid_and_list_error_names_no_group() {
    use list_req::options::ListOption;
    let node = TestNode::start().await;
    let mut groups = Groups::new(node.channel().await);
    let stream = list_req::stream_option::Source::Stream(identifier());
    let list = ListOption::ListForStream(list_req::StreamOption { source: Some(stream) });
    let list = ListReq { options: Some(list_req::Options { list_option: Some(list) }) };
    let unknown = groups.list(list.clone()).await.unwrap_err();
    assert_eq!(unknown.message(), "Subscription group  on stream order-1 does not exist.");
    assert_eq!(unknown.metadata().get("stream-name").unwrap(), "order-1");
    assert_eq!(unknown.metadata().get("group-name"), None);

    let options = create_req::Options {
        stream_identifier: None,
        group_name: String::new(),
        settings: Some(settings()),
        source: Some(source_stream(0)),
    };
    groups.create(CreateReq { options: Some(options) }).await.unwrap();
    let listed = groups.list(list).await.unwrap().into_inner().subscriptions;
    assert_eq!((listed.len(), listed[0].group_name.as_str()), (1, ""));
    let source = Some(delete_req::options::Source::StreamIdentifier(identifier()));
    let options = Some(delete_req::Options { group_name: String::new(), source });
    groups.delete(DeleteReq { options }).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn group_reports_no_event_before_its_first_read() {
    let node = TestNode::start().await;
    let mut groups = Groups::new(node.channel().await);
    assert_eq!(create_status(&mut groups, settings(), source_stream(2)).await.0, Code::Ok);
    assert_eq!(read_info(&mut groups).await.last_known_event_position, "");
    append_events(&node.client(), "order-1", StreamState::NoStream, new_events(4)).await;
    within_deadline(async {
        while read_info(&mut groups).await.last_known_event_position != "3" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(read_info(&mut groups).await.last_checkpointed_event_position, "");
    node.stop().await;
}

async fn read_info(groups: &mut Groups) -> SubscriptionInfo {
    let source = Some(get_info_req::options::Source::StreamIdentifier(identifier()));
    let options = Some(get_info_req::Options { group_name: "workers".to_owned(), source });
    let answer = groups.get_info(GetInfoReq { options }).await.unwrap();
    answer.into_inner().subscription_info.unwrap()
}
