//! Random messages to every rpc. Each gets responses or a status, and the node keeps serving.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use conformance::protocol::event_store::client::{
    Empty, StreamIdentifier, UuidOption,
    gossip::gossip_client::GossipClient,
    persistent_subscriptions::{
        self as groups,
        persistent_subscriptions_client::PersistentSubscriptionsClient as GroupsClient,
    },
    server_features::server_features_client::ServerFeaturesClient,
    streams::{self, streams_client::StreamsClient},
    uuid_option,
};
use eventstore::StreamState;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use testkit::variation;
use tonic::{Code, Response, Status, Streaming, transport::Channel};

use crate::{
    fixture::{DEADLINE, TestNode, append_events, new_events, read_revisions},
    fuzz_values::{
        bytes_name, count, delete_options, filter, id, name, number, position, proposed, settings,
        small, source_all,
    },
};

/// Maximum number of responses that are read per call, because some calls never end.
const MAX_RESPONSES: usize = 20;

/// How long a call stays open that only the client can end.
const OPEN_END: Duration = Duration::from_millis(20);

/// Number of calls.
const CASES: u32 = 400;

#[derive(Debug, Clone)]
enum Call {
    Read(streams::ReadReq),
    Append(Vec<streams::AppendReq>),
    BatchAppend(Vec<streams::BatchAppendReq>),
    Delete(streams::DeleteReq),
    Tombstone(streams::TombstoneReq),
    Create(groups::CreateReq),
    Update(groups::UpdateReq),
    DeleteGroup(groups::DeleteReq),
    ReadGroup(Vec<groups::ReadReq>),
    GetInfo(groups::GetInfoReq),
    ReplayParked(groups::ReplayParkedReq),
    List(groups::ListReq),
    RestartSubsystem,
    GetSupportedMethods,
    Gossip,
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => any_read().prop_map(Call::Read),
        6 => prop::collection::vec(append_part(), 0..4).prop_map(Call::Append),
        6 => prop::collection::vec(batch_part(), 0..4).prop_map(Call::BatchAppend),
        1 => prop::option::of(delete_options())
            .prop_map(|options| Call::Delete(streams::DeleteReq { options })),
        1 => prop::option::of(delete_options())
            .prop_map(|options| Call::Tombstone(streams::TombstoneReq { options })),
        6 => any_create().prop_map(Call::Create),
        2 => any_create().prop_map(|create| Call::Update(to_update(create))),
        1 => (group_source(), name()).prop_map(|(source, group_name)| {
            use groups::delete_req::{Options, options::Source};
            let source = source.map(|stream| stream.map_or(Source::All(Empty {}), Source::StreamIdentifier));
            Call::DeleteGroup(groups::DeleteReq { options: Some(Options { group_name, source }) })
        }),
        6 => prop::collection::vec(group_part(), 0..4).prop_map(Call::ReadGroup),
        2 => (group_source(), name()).prop_map(|(source, group_name)| {
            use groups::get_info_req::{Options, options::Source};
            let source = source.map(|stream| stream.map_or(Source::All(Empty {}), Source::StreamIdentifier));
            Call::GetInfo(groups::GetInfoReq { options: Some(Options { group_name, source }) })
        }),
        2 => any_replay().prop_map(Call::ReplayParked),
        1 => any_list().prop_map(Call::List),
        1 => Just(Call::RestartSubsystem),
        1 => Just(Call::GetSupportedMethods),
        1 => Just(Call::Gossip),
    ]
}

fn any_identifier() -> impl Strategy<Value = Option<StreamIdentifier>> {
    prop::option::weighted(
        0.9,
        bytes_name().prop_map(|stream_name| StreamIdentifier { stream_name }),
    )
}

/// `Some(None)` stands for `$all`.
fn group_source() -> impl Strategy<Value = Option<Option<StreamIdentifier>>> {
    prop_oneof![Just(None), Just(Some(None)), any_identifier().prop_map(Some)]
}

fn ids_option() -> impl Strategy<Value = Option<UuidOption>> {
    use uuid_option::Content;
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(UuidOption { content: None })),
        4 => Just(Some(UuidOption { content: Some(Content::String(Empty {})) })),
        4 => Just(Some(UuidOption { content: Some(Content::Structured(Empty {})) })),
    ]
}

fn any_read() -> impl Strategy<Value = streams::ReadReq> {
    use streams::read_options::{
        Control, Extent, FilterOption, Source, Stream, stream::RevisionOption,
    };
    let revision = prop_oneof![
        Just(None),
        number().prop_map(|revision| Some(RevisionOption::Revision(revision))),
        Just(Some(RevisionOption::Start(Empty {}))),
        Just(Some(RevisionOption::End(Empty {}))),
    ];
    let stream = (any_identifier(), revision).prop_map(|(stream_identifier, revision_option)| {
        Some(Source::Stream(Stream { stream_identifier, revision_option }))
    });
    let source = prop_oneof![
        1 => Just(None),
        6 => stream,
        6 => source_all().prop_map(|all| Some(Source::All(all))),
    ];
    let extent = prop_oneof![
        1 => Just(None),
        4 => number().prop_map(|count| Some(Extent::Count(count))),
        4 => Just(Some(Extent::Subscription(Empty {}))),
    ];
    let filter_option = prop_oneof![
        1 => Just(None),
        4 => filter().prop_map(|filter| Some(FilterOption::Filter(filter))),
        6 => Just(Some(FilterOption::NoFilter(Empty {}))),
    ];
    let control = prop::option::of(count().prop_map(|compatibility| Control { compatibility }));
    (source, extent, filter_option, ids_option(), control, small(), any::<bool>()).prop_map(
        |(
            source,
            extent,
            filter_option,
            uuid_option,
            control_option,
            read_direction,
            resolve_links,
        )| {
            let options = streams::ReadOptions {
                source,
                read_direction,
                resolve_links,
                extent,
                filter_option,
                uuid_option,
                control_option,
            };
            streams::ReadReq { options: Some(options) }
        },
    )
}

fn append_part() -> impl Strategy<Value = streams::AppendReq> {
    use streams::append_req::{Content, Options, options::ExpectedStreamRevision};
    let expected = prop_oneof![
        1 => Just(None),
        4 => number().prop_map(|revision| Some(ExpectedStreamRevision::Revision(revision))),
        6 => Just(Some(ExpectedStreamRevision::Any(Empty {}))),
        1 => Just(Some(ExpectedStreamRevision::NoStream(Empty {}))),
    ];
    let options =
        (any_identifier(), expected).prop_map(|(stream_identifier, expected_stream_revision)| {
            Some(Content::Options(Options { stream_identifier, expected_stream_revision }))
        });
    let content = prop_oneof![
        1 => Just(None),
        6 => options,
        6 => proposed().prop_map(|message| Some(Content::ProposedMessage(message))),
    ];
    content.prop_map(|content| streams::AppendReq { content })
}

fn batch_part() -> impl Strategy<Value = streams::BatchAppendReq> {
    use streams::batch_append_req::{
        Options,
        options::{DeadlineOption, ExpectedStreamPosition},
    };
    let expected = prop_oneof![
        1 => Just(None),
        4 => number().prop_map(|revision| Some(ExpectedStreamPosition::StreamPosition(revision))),
        6 => Just(Some(ExpectedStreamPosition::Any(Empty {}))),
    ];
    let deadline = prop_oneof![
        Just(None),
        (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| {
            let at = conformance::protocol::event_store::client::Timestamp { seconds, nanos };
            Some(DeadlineOption::Deadline21100(at))
        }),
        (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| {
            let left = conformance::protocol::event_store::client::Duration { seconds, nanos };
            Some(DeadlineOption::Deadline(left))
        }),
    ];
    let options = (any_identifier(), expected, deadline).prop_map(
        |(stream_identifier, expected_stream_position, deadline_option)| Options {
            stream_identifier,
            expected_stream_position,
            deadline_option,
        },
    );
    let messages = prop::collection::vec(proposed(), 0..3);
    (prop::option::of(id()), prop::option::weighted(0.8, options), messages, any::<bool>())
        .prop_map(|(correlation_id, options, proposed_messages, is_final)| {
            streams::BatchAppendReq { correlation_id, options, proposed_messages, is_final }
        })
}

fn any_create() -> impl Strategy<Value = groups::CreateReq> {
    use groups::{
        AllOptions, StreamOptions, all_options, create_req::Options, create_req::options::Source,
        stream_options,
    };
    let stream = (any_identifier(), number()).prop_map(|(stream_identifier, revision)| {
        let revision_option = Some(stream_options::RevisionOption::Revision(revision));
        Some(Source::Stream(StreamOptions { stream_identifier, revision_option }))
    });
    let all = (position(), prop::option::of(filter())).prop_map(|(position, filter)| {
        let position_option = Some(all_options::PositionOption::Position(position));
        let filter_option = filter.map(all_options::FilterOption::Filter);
        Some(Source::All(AllOptions { position_option, filter_option }))
    });
    let source = prop_oneof![1 => Just(None), 4 => stream, 4 => all];
    (source, any_identifier(), name(), prop::option::weighted(0.9, settings())).prop_map(
        |(source, stream_identifier, group_name, settings)| groups::CreateReq {
            options: Some(Options { stream_identifier, group_name, settings, source }),
        },
    )
}

fn to_update(create: groups::CreateReq) -> groups::UpdateReq {
    use groups::{create_req::options::Source as From, update_req::options::Source};
    let options = create.options.map(|options| groups::update_req::Options {
        stream_identifier: options.stream_identifier,
        group_name: options.group_name,
        settings: options.settings,
        source: options.source.map(|source| match source {
            From::Stream(stream) => Source::Stream(stream),
            From::All(all) => Source::All(all),
        }),
    });
    groups::UpdateReq { options }
}

fn group_part() -> impl Strategy<Value = groups::ReadReq> {
    use groups::read_req::{Ack, Content, Nack, Options, options::Source};
    let ids = || prop::collection::vec(id(), 0..4);
    let options = (group_source(), name(), small(), ids_option()).prop_map(
        |(source, group_name, buffer_size, uuid_option)| {
            let source =
                source.map(|stream| stream.map_or(Source::All(Empty {}), Source::StreamIdentifier));
            Some(Content::Options(Options { group_name, buffer_size, uuid_option, source }))
        },
    );
    let ack = ids().prop_map(|ids| Some(Content::Ack(Ack { id: Vec::new().into(), ids })));
    let nack = (ids(), small(), name()).prop_map(|(ids, action, reason)| {
        Some(Content::Nack(Nack { id: Vec::new().into(), ids, action, reason }))
    });
    let content = prop_oneof![1 => Just(None), 4 => options, 2 => ack, 2 => nack];
    content.prop_map(|content| groups::ReadReq { content })
}

fn any_replay() -> impl Strategy<Value = groups::ReplayParkedReq> {
    use groups::replay_parked_req::{
        Options,
        options::{Source, StopAtOption},
    };
    (group_source(), name(), prop::option::of(any::<i64>())).prop_map(
        |(source, group_name, stop_at)| {
            let source =
                source.map(|stream| stream.map_or(Source::All(Empty {}), Source::StreamIdentifier));
            let stop_at_option = stop_at.map(StopAtOption::StopAt);
            let options = Options { group_name, source, stop_at_option };
            groups::ReplayParkedReq { options: Some(options) }
        },
    )
}

fn any_list() -> impl Strategy<Value = groups::ListReq> {
    use groups::list_req::{Options, StreamOption, options::ListOption, stream_option::Source};
    let list_option = group_source().prop_map(|source| match source {
        None => Some(ListOption::ListAllSubscriptions(Empty {})),
        Some(stream) => {
            let source = stream.map_or(Source::All(Empty {}), Source::Stream);
            Some(ListOption::ListForStream(StreamOption { source: Some(source) }))
        }
    });
    list_option.prop_map(|list_option| groups::ListReq { options: Some(Options { list_option }) })
}

/// Makes the call. Fails with the call's status unless it is OK.
async fn make_call(channel: &Channel, call: Call, finishes: bool) -> Result<(), Status> {
    let mut streams = StreamsClient::new(channel.clone());
    let mut groups = GroupsClient::new(channel.clone());
    match call {
        Call::Read(request) => drain_responses(streams.read(request).await).await,
        Call::Append(parts) => streams.append(request_stream(parts, finishes)).await.map(drop),
        Call::BatchAppend(parts) => {
            drain_responses(streams.batch_append(request_stream(parts, finishes)).await).await
        }
        Call::Delete(request) => streams.delete(request).await.map(drop),
        Call::Tombstone(request) => streams.tombstone(request).await.map(drop),
        Call::Create(request) => groups.create(request).await.map(drop),
        Call::Update(request) => groups.update(request).await.map(drop),
        Call::DeleteGroup(request) => groups.delete(request).await.map(drop),
        Call::ReadGroup(parts) => {
            drain_responses(groups.read(request_stream(parts, finishes)).await).await
        }
        Call::GetInfo(request) => groups.get_info(request).await.map(drop),
        Call::ReplayParked(request) => groups.replay_parked(request).await.map(drop),
        Call::List(request) => groups.list(request).await.map(drop),
        Call::RestartSubsystem => groups.restart_subsystem(Empty {}).await.map(drop),
        Call::GetSupportedMethods => {
            let mut features = ServerFeaturesClient::new(channel.clone());
            features.get_supported_methods(Empty {}).await.map(drop)
        }
        Call::Gossip => GossipClient::new(channel.clone()).read(Empty {}).await.map(drop),
    }
}

/// Returns the request stream of a call. It stays open unless `finishes`.
fn request_stream<T: Send + 'static>(parts: Vec<T>, finishes: bool) -> BoxStream<'static, T> {
    let parts = stream::iter(parts);
    if finishes { parts.boxed() } else { parts.chain(stream::pending()).boxed() }
}

/// Reads responses up to [`MAX_RESPONSES`].
async fn drain_responses<T>(
    response: Result<Response<Streaming<T>>, Status>,
) -> Result<(), Status> {
    let mut responses = response?.into_inner();
    for _ in 0..MAX_RESPONSES {
        if responses.message().await?.is_none() {
            break;
        }
    }
    Ok(())
}

/// Returns whether the call ends without the client.
fn ends_by_itself(call: &Call, finishes: bool) -> bool {
    use streams::read_options::Extent;
    match call {
        Call::Read(request) => {
            let extent = request.options.as_ref().and_then(|options| options.extent.as_ref());
            !matches!(extent, Some(Extent::Subscription(_)))
        }
        Call::Append(_) | Call::BatchAppend(_) => finishes,
        // A consumer gets deliveries until it disconnects, even after it has ended its request.
        Call::ReadGroup(_) => false,
        Call::Delete(_)
        | Call::Tombstone(_)
        | Call::Create(_)
        | Call::Update(_)
        | Call::DeleteGroup(_)
        | Call::GetInfo(_)
        | Call::ReplayParked(_)
        | Call::List(_)
        | Call::RestartSubsystem
        | Call::GetSupportedMethods
        | Call::Gossip => true,
    }
}

async fn check_call(channel: &Channel, call: Call, finishes: bool) -> Result<(), TestCaseError> {
    let ends = ends_by_itself(&call, finishes);
    let limit = if ends { DEADLINE } else { OPEN_END };
    match tokio::time::timeout(limit, make_call(channel, call, finishes)).await {
        Err(_) => prop_assert!(!ends, "no answer"),
        Ok(Ok(())) => {}
        Ok(Err(status)) => {
            prop_assert!(status.code() != Code::Unavailable, "{status:?}");
            prop_assert!(
                std::error::Error::source(&status).is_none(),
                "connection lost: {status:?}"
            );
        }
    }
    Ok(())
}

/// Counts panics in the node. To a client, some panics look like a status.
fn count_panics() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&panics);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|at| at.file().contains("event-node/src")) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        report(panic);
    }));
    panics
}

#[test]
fn every_random_message_gets_a_response() {
    let panics = count_panics();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = runtime.block_on(TestNode::start());
    let channel = runtime.block_on(node.channel());
    let rng_seed = RngSeed::Fixed(variation::seed(1));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, rng_seed, ..Default::default() });
    let result = runner.run(&(any_call(), prop::bool::weighted(0.9)), |(call, finishes)| {
        runtime.block_on(check_call(&channel, call, finishes))
    });
    result.unwrap();
    runtime.block_on(async {
        let client = node.client();
        append_events(&client, "still-here", StreamState::NoStream, new_events(3)).await;
        assert_eq!(read_revisions(&client, "still-here").await, [0, 1, 2]);
        node.stop().await;
    });
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}
