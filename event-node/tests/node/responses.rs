//! Details of responses that no official client shows, as EventStoreDB 23.10.6 sends them.

use conformance::protocol::event_store::client::{
    Empty, Position, ProposedMessage, Uuid, UuidOption,
    gossip::gossip_client::GossipClient,
    streams::{
        self, AppendReq, BatchAppendReq, ReadOptions, ReadReq,
        append_req::{self, options::ExpectedStreamRevision as Expected},
        append_resp,
        read_options::{self, Extent, FilterOption, Source},
        read_resp::Content,
        streams_client::StreamsClient,
    },
    uuid::Value,
    uuid_option,
};
use eventstore::{Client, DeleteStreamOptions, EventData, StreamState, TombstoneStreamOptions};
use prost::bytes::Bytes;
use tonic::{Code, Status, transport::Channel};

use crate::{
    fixture::{
        TestNode, append_events, collect_events, new_events, read_revisions, within_deadline,
    },
    raw_http::{proposed_event, stream_identifier},
};

/// Appends raw messages.
async fn append_messages(
    streams: &mut StreamsClient<Channel>,
    stream: &str,
    expected: Option<Expected>,
    events: Vec<ProposedMessage>,
) -> Result<append_resp::Result, Status> {
    let options = append_req::Options {
        stream_identifier: Some(stream_identifier(stream)),
        expected_stream_revision: expected,
    };
    let proposed = events.into_iter().map(append_req::Content::ProposedMessage);
    let contents = std::iter::once(append_req::Content::Options(options)).chain(proposed);
    let requests: Vec<_> = contents.map(|content| AppendReq { content: Some(content) }).collect();
    let answer = streams.append(tokio_stream::iter(requests)).await?.into_inner();
    Ok(answer.result.unwrap())
}

/// Returns revision and position of a successful append.
fn written_at(result: append_resp::Result) -> (Option<u64>, Option<u64>) {
    use append_resp::success::{CurrentRevisionOption, PositionOption};
    let append_resp::Result::Success(success) = result else { panic!("{result:?}") };
    let revision = match success.current_revision_option.unwrap() {
        CurrentRevisionOption::CurrentRevision(revision) => Some(revision),
        CurrentRevisionOption::NoStream(_) => None,
    };
    let position = match success.position_option.unwrap() {
        PositionOption::Position(position) => Some(position.commit_position),
        PositionOption::NoPosition(_) => None,
    };
    (revision, position)
}

/// Returns a read of a stream from the revision `from` on.
fn read_stream_from(stream: &str, from: u64) -> ReadReq {
    use read_options::stream::RevisionOption;
    let source = Source::Stream(read_options::Stream {
        stream_identifier: Some(stream_identifier(stream)),
        revision_option: Some(RevisionOption::Revision(from)),
    });
    read_request(source, Extent::Count(u64::MAX))
}

fn read_request(source: Source, extent: Extent) -> ReadReq {
    let options = ReadOptions {
        source: Some(source),
        extent: Some(extent),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption { content: Some(uuid_option::Content::String(Empty {})) }),
        control_option: Some(read_options::Control { compatibility: 1 }),
        ..ReadOptions::default()
    };
    ReadReq { options: Some(options) }
}

async fn read_contents(
    streams: &mut StreamsClient<Channel>,
    request: ReadReq,
) -> Result<Vec<Content>, Status> {
    let mut responses = streams.read(request).await?.into_inner();
    let mut contents = Vec::new();
    while let Some(response) = within_deadline(responses.message()).await? {
        contents.push(response.content.unwrap());
    }
    Ok(contents)
}

/// Returns the first and last stream positions that a read reports.
fn reported_positions(contents: &[Content]) -> Vec<(&'static str, u64)> {
    let position = |content: &Content| {
        if let Content::FirstStreamPosition(position) = content {
            return Some(("first", *position));
        }
        let Content::LastStreamPosition(position) = content else { return None };
        Some(("last", *position))
    };
    contents.iter().filter_map(position).collect()
}

async fn set_metadata(client: &Client, stream: &str, json: &'static str) {
    append_events(client, &format!("$${stream}"), StreamState::Any, [metadata_event(json)]).await;
}

/// Returns a metadata event with an unusual type. The type does not matter.
fn metadata_event(json: &'static str) -> EventData {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    EventData::json("mine", &value).unwrap()
}

#[tokio::test]
async fn empty_append_names_newest_event_and_recreates_stream() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut streams = StreamsClient::new(node.channel().await);
    let any = Some(Expected::Any(Empty {}));
    let newest =
        append_events(&client, "order-1", StreamState::Any, new_events(3)).await.position.commit;
    let nothing = append_messages(&mut streams, "order-2", any, Vec::new()).await.unwrap();
    assert_eq!(written_at(nothing), (None, Some(newest)));
    let nothing = append_messages(&mut streams, "order-1", any, Vec::new()).await.unwrap();
    assert_eq!(written_at(nothing), (Some(2), Some(newest)));

    client.delete_stream("order-1", &DeleteStreamOptions::default()).await.unwrap();
    let expected = Some(Expected::Revision(2));
    let nothing = append_messages(&mut streams, "order-1", expected, Vec::new()).await.unwrap();
    assert_eq!(written_at(nothing), (Some(2), Some(newest + 1)));
    let seen = read_contents(&mut streams, read_stream_from("order-1", 0)).await.unwrap();
    assert_eq!(reported_positions(&seen), [("first", 3), ("last", 2)]);
    node.stop().await;
}

#[tokio::test]
async fn conflict_repeats_expected_version_of_request() {
    use append_resp::wrong_expected_version::ExpectedRevisionOption;
    let node = TestNode::start().await;
    append_events(&node.client(), "order-1", StreamState::Any, new_events(3)).await;
    let mut streams = StreamsClient::new(node.channel().await);
    for (said, answered) in [
        (Expected::Revision(u64::MAX), ExpectedRevisionOption::ExpectedRevision(u64::MAX)),
        (Expected::NoStream(Empty {}), ExpectedRevisionOption::ExpectedNoStream(Empty {})),
        (Expected::Revision(7), ExpectedRevisionOption::ExpectedRevision(7)),
    ] {
        let proposed = vec![proposed_event()];
        let result = append_messages(&mut streams, "order-1", Some(said), proposed).await.unwrap();
        let append_resp::Result::WrongExpectedVersion(wrong) = result else { panic!("{result:?}") };
        assert_eq!(wrong.expected_revision_option, Some(answered));
    }
    node.stop().await;
}

#[tokio::test]
async fn write_without_expected_version_is_invalid() {
    let node = TestNode::start().await;
    let mut streams = StreamsClient::new(node.channel().await);
    for name in ["order-1", ""] {
        let appended = append_messages(&mut streams, name, None, vec![proposed_event()]).await;
        assert_eq!(appended.unwrap_err().code(), Code::InvalidArgument);
        let options = Some(streams::DeleteOptions {
            stream_identifier: Some(stream_identifier(name)),
            expected_stream_revision: None,
        });
        let request = streams::DeleteReq { options: options.clone() };
        let deleted = streams.delete(request).await.unwrap_err();
        assert_eq!(deleted.code(), Code::InvalidArgument);
        let tombstoned = streams.tombstone(streams::TombstoneReq { options }).await.unwrap_err();
        assert_eq!(tombstoned.code(), Code::InvalidArgument);
    }
    node.stop().await;
}

#[tokio::test]
async fn repeated_id_names_its_first_event() {
    let node = TestNode::start().await;
    let mut streams = StreamsClient::new(node.channel().await);
    let event = proposed_event();
    for expected in [Expected::NoStream(Empty {}), Expected::Revision(0)] {
        let again = vec![event.clone()];
        append_messages(&mut streams, "order-1", Some(expected), again).await.unwrap();
    }
    for count in [1, 3] {
        let repeated = vec![event.clone(); count];
        let any = Some(Expected::Any(Empty {}));
        let result = append_messages(&mut streams, "order-1", any, repeated).await.unwrap();
        assert_eq!(written_at(result).0, Some(0));
    }
    assert_eq!(read_revisions(&node.client(), "order-1").await, [0, 1]);
    node.stop().await;
}

#[tokio::test]
async fn empty_read_reports_where_stream_continues() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::Any, new_events(5)).await;
    let mut streams = StreamsClient::new(node.channel().await);
    for (json, from, wanted) in [
        ("{}", 0, vec![("last", 4)]),
        ("{}", 5, vec![("last", 4)]),
        ("{}", 7, vec![("first", 5), ("last", 4)]),
        (r#"{"$tb":3}"#, 0, vec![("last", 4)]),
        (r#"{"$tb":9}"#, 0, vec![("first", 5), ("last", 4)]),
        (r#"{"$tb":99}"#, 0, vec![("first", 99), ("first", 5), ("last", 4)]),
    ] {
        set_metadata(&client, "order-1", json).await;
        let seen = read_contents(&mut streams, read_stream_from("order-1", from)).await.unwrap();
        assert_eq!(reported_positions(&seen), wanted, "{json} from {from}");
    }
    node.stop().await;
}

#[tokio::test]
async fn link_to_minus_one_resolves_to_newest_event() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::Any, new_events(3)).await;
    let link = |data: &'static str| EventData::binary("$>", Bytes::from_static(data.as_bytes()));
    let links = ["-1@order-1", " 1@order-1", "-2@order-1"].map(link);
    append_events(&client, "links", StreamState::Any, links).await;
    let options = eventstore::ReadStreamOptions::default().resolve_link_tos();
    let read = collect_events(client.read_stream("links", &options).await.unwrap()).await;
    let pointed: Vec<_> = read
        .iter()
        .map(|read| read.link.as_ref().and(read.event.as_ref()).map(|event| event.revision))
        .collect();
    assert_eq!(pointed, [Some(2), Some(1), None]);
    node.stop().await;
}

#[tokio::test]
async fn contradictory_reads_are_rejected() {
    let node = TestNode::start().await;
    append_events(&node.client(), "order-1", StreamState::Any, new_events(1)).await;
    let mut streams = StreamsClient::new(node.channel().await);
    for direction in [2, -1] {
        let mut request = read_stream_from("order-1", 0);
        request.options.as_mut().unwrap().read_direction = direction;
        let refused = read_contents(&mut streams, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let wanted =
            format!("The combination of (Stream, Count, {direction}, NoFilter) is invalid.");
        assert_eq!(refused.message(), wanted);
    }
    for (commit_position, prepare_position) in [(u64::MAX, 0), (0, u64::MAX)] {
        let position = Position { commit_position, prepare_position };
        let position_option = Some(read_options::all::PositionOption::Position(position));
        let source = Source::All(read_options::All { position_option });
        let refused =
            read_contents(&mut streams, read_request(source, Extent::Count(1))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unknown);
    }
    node.stop().await;
}

#[tokio::test]
async fn ids_are_structured_by_default() {
    let node = TestNode::start().await;
    append_events(&node.client(), "order-1", StreamState::Any, new_events(1)).await;
    let mut streams = StreamsClient::new(node.channel().await);
    let mut request = read_stream_from("order-1", 0);
    request.options.as_mut().unwrap().uuid_option = Some(UuidOption { content: None });
    let contents = read_contents(&mut streams, request).await.unwrap();
    let Content::Event(event) = &contents[0] else { panic!("{contents:?}") };
    let id = event.event.as_ref().unwrap().id.as_ref().unwrap();
    assert!(matches!(id.value, Some(Value::Structured(_))), "{id:?}");
    let members = GossipClient::new(node.channel().await).read(Empty {}).await.unwrap();
    let id = members.into_inner().members[0].instance_id.clone().unwrap();
    assert!(matches!(id.value, Some(Value::Structured(_))), "{id:?}");
    node.stop().await;
}

#[tokio::test]
async fn metadata_applies_only_if_entirely_valid() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::Any, new_events(3)).await;
    for (json, shown) in [
        (r#"{"$maxCount":1}"#, vec![2]),
        (r#"{"$maxCount":1,"$acl":5}"#, vec![0, 1, 2]),
        (r#"{"$maxCount":2,"$acl":{"$r":"$admins"},"mine":5}"#, vec![1, 2]),
        (r#"{"$maxCount":"1"}"#, vec![0, 1, 2]),
    ] {
        set_metadata(&client, "order-1", json).await;
        assert_eq!(read_revisions(&client, "order-1").await, shown, "{json}");
    }
    // Metadata of a metastream has no effect: its newest event stays visible.
    set_metadata(&client, "$$order-1", r#"{"$tb":99,"$maxCount":3}"#).await;
    assert_eq!(read_revisions(&client, "$$order-1").await, [3]);
    client.delete_stream("$$order-1", &DeleteStreamOptions::default()).await.unwrap();
    assert_eq!(read_revisions(&client, "$$order-1").await, [3]);
    // The same holds after a restart.
    let node = TestNode::start_in(node.stop().await).await;
    assert_eq!(read_revisions(&node.client(), "$$order-1").await, [3]);
    assert_eq!(read_revisions(&node.client(), "order-1").await, [0, 1, 2]);
    node.stop().await;
}

#[tokio::test]
async fn tombstoned_stream_rejects_first_metadata() {
    let node = TestNode::start().await;
    let client = node.client();
    client.tombstone_stream("order-1", &TombstoneStreamOptions::default()).await.unwrap();
    let options = eventstore::AppendToStreamOptions::default();
    let refused = client.append_to_stream("$$order-1", &options, metadata_event("{}")).await;
    assert!(matches!(refused, Err(eventstore::Error::ResourceDeleted)), "{refused:?}");
    node.stop().await;
}

#[tokio::test]
async fn batch_append_rejects_invalid_ids_and_times() {
    use conformance::protocol::event_store::client::{Duration, Timestamp};
    use streams::{
        batch_append_req::{
            Options,
            options::{DeadlineOption, ExpectedStreamPosition},
        },
        batch_append_resp::Result as Answer,
    };
    let node = TestNode::start().await;
    let mut streams = StreamsClient::new(node.channel().await);
    let id = |number| Value::String(uuid::Uuid::from_u128(number).to_string());
    let duration = |seconds, nanos| Some(DeadlineOption::Deadline(Duration { seconds, nanos }));
    let time = |seconds, nanos| Some(DeadlineOption::Deadline21100(Timestamp { seconds, nanos }));
    for (number, deadline_option, text) in [
        (0, None, "non-empty GUID"),
        (1, duration(i64::MAX, 0), "not a valid normalized duration"),
        (1, duration(10, 2_000_000_000), "not a valid normalized duration"),
        (1, duration(1, -1), "not a valid normalized duration"),
        (1, time(i64::MIN, 0), "Timestamp contains invalid values"),
        (1, time(253_402_300_799, -1), "Timestamp contains invalid values"),
    ] {
        let options = Options {
            stream_identifier: Some(stream_identifier("order-1")),
            expected_stream_position: Some(ExpectedStreamPosition::Any(Empty {})),
            deadline_option,
        };
        let request = BatchAppendReq {
            correlation_id: Some(Uuid { value: Some(id(number)) }),
            options: Some(options),
            proposed_messages: vec![proposed_event()],
            is_final: true,
        };
        let mut answers =
            streams.batch_append(tokio_stream::iter([request])).await.unwrap().into_inner();
        let answer = within_deadline(answers.message()).await.unwrap().unwrap();
        let Some(Answer::Error(error)) = answer.result else { panic!("{answer:?}") };
        assert_eq!(error.code, i32::from(Code::InvalidArgument));
        let detail = String::from_utf8_lossy(&error.details.unwrap().value).into_owned();
        assert!(detail.contains(text), "{detail}");
    }
    node.stop().await;
}

#[tokio::test]
async fn slow_subscriber_gets_caught_up_again() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut streams = StreamsClient::new(node.channel().await);
    let source = Source::Stream(read_options::Stream {
        stream_identifier: Some(stream_identifier("order-1")),
        revision_option: Some(read_options::stream::RevisionOption::Start(Empty {})),
    });
    let request = read_request(source, Extent::Subscription(Empty {}));
    let mut responses = streams.read(request).await.unwrap().into_inner();
    let mut next =
        async || within_deadline(responses.message()).await.unwrap().unwrap().content.unwrap();
    assert!(matches!(next().await, Content::Confirmation(_)));
    assert!(matches!(next().await, Content::CaughtUp(_)));
    // More events than connection and subscription buffer while the client does not read.
    for _ in 0..4 {
        append_events(&client, "order-1", StreamState::Any, new_events(1_000)).await;
    }
    let mut revisions = Vec::new();
    while revisions.len() < 4_000 {
        let content = next().await;
        if let Content::Event(event) = content {
            revisions.push(event.event.unwrap().stream_revision);
        } else {
            // The client may have caught up in between.
            assert!(matches!(content, Content::CaughtUp(_)), "{content:?}");
        }
    }
    assert!(revisions.into_iter().eq(0..4_000));
    assert!(matches!(next().await, Content::CaughtUp(_)));
    node.stop().await;
}
