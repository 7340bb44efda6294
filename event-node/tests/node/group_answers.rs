//! What groups answer to the letter: refusals, and figures that clients show.

use eventstore::StreamState;
use tonic::{Code, transport::Channel};

use crate::{
    fixture::{TestNode, append, events, in_time},
    wire::event_store::client::{
        Empty, Position, StreamIdentifier,
        persistent_subscriptions::{
            AllOptions, CreateReq, GetInfoReq, Settings, StreamOptions, SubscriptionInfo,
            UpdateReq, all_options, create_req, get_info_req,
            persistent_subscriptions_client::PersistentSubscriptionsClient, stream_options,
            update_req,
        },
    },
};

type Groups = PersistentSubscriptionsClient<Channel>;

fn identifier() -> StreamIdentifier {
    StreamIdentifier { stream_name: "order-1".into() }
}

fn settings() -> Settings {
    Settings { read_batch_size: 20, history_buffer_size: 500, ..Settings::default() }
}

fn over_stream(revision: u64) -> create_req::options::Source {
    create_req::options::Source::Stream(StreamOptions {
        stream_identifier: Some(identifier()),
        revision_option: Some(stream_options::RevisionOption::Revision(revision)),
    })
}

fn over_all(position: u64) -> AllOptions {
    let position = Position { commit_position: position, prepare_position: position };
    AllOptions {
        position_option: Some(all_options::PositionOption::Position(position)),
        filter_option: Some(all_options::FilterOption::NoFilter(Empty {})),
    }
}

/// Code and reason of the refusal to create `workers`.
async fn refusal(
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
            let reason = status.metadata().get("reason").map(|it| it.to_str().unwrap());
            (status.code(), reason.unwrap_or_default().to_owned())
        }
    }
}

#[tokio::test]
async fn a_group_that_cannot_be_is_refused_with_the_exact_words_and_in_their_order() {
    let node = TestNode::start().await;
    let mut groups = Groups::new(node.channel().await);
    let nowhere = create_req::options::Source::Stream(StreamOptions {
        stream_identifier: Some(StreamIdentifier::default()),
        revision_option: Some(stream_options::RevisionOption::Start(Empty {})),
    });
    let bad_name = (Code::Internal, "Bad stream name.".to_owned());
    assert_eq!(refusal(&mut groups, settings(), nowhere).await, bad_name);
    let no_strategy = Settings { consumer_strategy: "Lottery".to_owned(), ..settings() };
    let bad_sizes = Settings { read_batch_size: 500, ..settings() };
    let beyond = || create_req::options::Source::All(over_all(1_000));

    let everything = Settings { consumer_strategy: "Lottery".to_owned(), ..bad_sizes.clone() };
    let unknown = (Code::Internal, "Consumer strategy Lottery does not exist.".to_owned());
    assert_eq!(refusal(&mut groups, everything, beyond()).await, unknown);
    assert_eq!(refusal(&mut groups, no_strategy.clone(), over_stream(0)).await, unknown);
    let (code, reason) = refusal(&mut groups, bad_sizes.clone(), beyond()).await;
    assert_eq!(code, Code::Internal);
    assert!(reason.starts_with("Invalid Start From position: commit position must be"), "{reason}");
    let (code, reason) = refusal(&mut groups, bad_sizes.clone(), over_stream(0)).await;
    assert_eq!(code, Code::Internal);
    assert!(
        reason.ends_with(
            "(Parameter 'ReadBatchSize may not be greater than or equal to BufferSize')"
        )
    );

    assert_eq!(refusal(&mut groups, settings(), over_stream(0)).await.0, Code::Ok);
    assert_eq!(refusal(&mut groups, bad_sizes, over_stream(0)).await.0, Code::AlreadyExists);
    assert_eq!(refusal(&mut groups, no_strategy.clone(), over_stream(0)).await, unknown);

    let update = update_req::Options {
        group_name: "nobody".to_owned(),
        settings: Some(no_strategy),
        source: Some(update_req::options::Source::All(over_all(1_000))),
        ..update_req::Options::default()
    };
    let absent = groups.update(UpdateReq { options: Some(update) }).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    assert_eq!(absent.message(), "Subscription group nobody on stream $all does not exist.");
    node.stop().await;
}

#[tokio::test]
async fn a_group_knows_no_event_before_it_read_one() {
    let node = TestNode::start().await;
    let mut groups = Groups::new(node.channel().await);
    assert_eq!(refusal(&mut groups, settings(), over_stream(2)).await.0, Code::Ok);
    assert_eq!(info(&mut groups).await.last_known_event_position, "");
    append(&node.client(), "order-1", StreamState::NoStream, events(4)).await;
    in_time(async {
        while info(&mut groups).await.last_known_event_position != "3" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(info(&mut groups).await.last_checkpointed_event_position, "");
    node.stop().await;
}

async fn info(groups: &mut Groups) -> SubscriptionInfo {
    let source = Some(get_info_req::options::Source::StreamIdentifier(identifier()));
    let options = Some(get_info_req::Options { group_name: "workers".to_owned(), source });
    let answer = groups.get_info(GetInfoReq { options }).await.unwrap();
    answer.into_inner().subscription_info.unwrap()
}
