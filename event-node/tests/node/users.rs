//! Users: credentials of each call, a replaced users file, and the limit on failed attempts.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use conformance::protocol::event_store::client::{
    Empty,
    gossip::gossip_client::GossipClient,
    operations::{StartScavengeReq, operations_client::OperationsClient, start_scavenge_req},
    persistent_subscriptions::{
        self as groups,
        persistent_subscriptions_client::PersistentSubscriptionsClient as GroupsClient,
    },
    server_features::server_features_client::ServerFeaturesClient,
    streams::{self, streams_client::StreamsClient},
};
use event_node::{NodeConfig, UsersFile};
use eventstore::{
    Error, PersistentSubscriptionOptions, ReadStreamOptions, StreamState,
    SubscribeToPersistentSubscriptionOptions,
};
use prost::bytes::Bytes;
use tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel};

use crate::{
    fixture::{TestNode, append_events, new_events, read_revisions, within_deadline},
    raw_http::{proposed_event, stream_identifier, subscribe_to_all},
};

/// Password of every user of a test.
pub(crate) const PASSWORD: &str = "a-long-password";

/// Users of a test, and the groups of each.
pub(crate) const USERS: [(&str, &[&str]); 5] = [
    ("admin", &[]),
    ("ops", &[]),
    ("root", &["$admins"]),
    ("ada", &["team"]),
    ("bob", &["$ops", "team"]),
];

/// Configures the node with [`USERS`].
pub(crate) fn add_users(config: &mut NodeConfig, folder: &Path) {
    let path = folder.join("users.json");
    let mut file = UsersFile::open_or_new(&path).unwrap();
    for (name, groups) in USERS {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        file.add_user(name, groups, PASSWORD).unwrap();
    }
    file.save().unwrap();
    config.users = path.display().to_string();
}

/// Returns a request with the header `authorization: Basic ...`; without it if there is no name.
pub(crate) fn request_by<T>(name: Option<&str>, message: T) -> Request<T> {
    let credentials = name.map(|name| format!("{name}:{PASSWORD}"));
    request_with(credentials.as_deref(), message)
}

fn request_with<T>(credentials: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(credentials) = credentials {
        let header = format!("Basic {}", STANDARD.encode(credentials));
        request.metadata_mut().insert("authorization", MetadataValue::try_from(header).unwrap());
    }
    request
}

/// Returns the requests of an append of one event under any revision.
fn append_requests(stream: &str) -> Vec<streams::AppendReq> {
    use streams::append_req::{Content, Options, options::ExpectedStreamRevision};
    let options = Options {
        stream_identifier: Some(stream_identifier(stream)),
        expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
    };
    let contents = [Content::Options(options), Content::ProposedMessage(proposed_event())];
    contents.map(|content| streams::AppendReq { content: Some(content) }).into()
}

/// Returns a batch append of one event under a revision; `None`: under any.
pub(crate) fn batch_request(stream: &str, revision: Option<u64>) -> streams::BatchAppendReq {
    use streams::batch_append_req::{Options, options::ExpectedStreamPosition};
    let any = ExpectedStreamPosition::Any(Empty {});
    let position = revision.map_or(any, ExpectedStreamPosition::StreamPosition);
    let options = Options {
        stream_identifier: Some(stream_identifier(stream)),
        expected_stream_position: Some(position),
        deadline_option: None,
    };
    streams::BatchAppendReq {
        correlation_id: proposed_event().id,
        options: Some(options),
        proposed_messages: vec![proposed_event()],
        is_final: true,
    }
}

/// Returns the deletion of a stream under a revision; `None`: under any.
pub(crate) fn delete_request(stream: &str, revision: Option<u64>) -> streams::DeleteReq {
    use streams::delete_options::ExpectedStreamRevision;
    let any = ExpectedStreamRevision::Any(Empty {});
    let options = streams::DeleteOptions {
        stream_identifier: Some(stream_identifier(stream)),
        expected_stream_revision: Some(revision.map_or(any, ExpectedStreamRevision::Revision)),
    };
    streams::DeleteReq { options: Some(options) }
}

/// Calls a method of each kind, and returns the name of each with its status.
async fn call_all_methods(
    channel: Channel,
    credentials: Option<&str>,
) -> Vec<(&'static str, Result<(), Status>)> {
    use streams::read_options::all::PositionOption;
    let mut streams = StreamsClient::new(channel.clone());
    let mut groups = GroupsClient::new(channel.clone());
    let mut operations = OperationsClient::new(channel.clone());
    let mut gossip = GossipClient::new(channel.clone());
    let mut features = ServerFeaturesClient::new(channel);
    let key = || (Some(stream_identifier("a")), "group".to_owned());
    let (stream_identifier, group_name) = key();
    let info = groups::GetInfoReq {
        options: Some(groups::get_info_req::Options {
            group_name,
            source: stream_identifier.map(groups::get_info_req::options::Source::StreamIdentifier),
        }),
    };
    let all = || subscribe_to_all(PositionOption::Start(Empty {}));
    let appends = tokio_stream::iter(append_requests("a"));
    let batches = tokio_stream::iter([batch_request("a", None)]);
    let scavenge = StartScavengeReq {
        options: Some(start_scavenge_req::Options { thread_count: 1, start_from_chunk: 0 }),
    };
    let request = credentials;
    vec![
        ("append", streams.append(request_with(request, appends)).await.map(drop)),
        ("batch append", streams.batch_append(request_with(request, batches)).await.map(drop)),
        ("read $all", streams.read(request_with(request, all())).await.map(drop)),
        (
            "delete",
            streams.delete(request_with(request, delete_request("a", None))).await.map(drop),
        ),
        ("group info", groups.get_info(request_with(request, info)).await.map(drop)),
        ("restart", groups.restart_subsystem(request_with(request, Empty {})).await.map(drop)),
        ("scavenge", operations.start_scavenge(request_with(request, scavenge)).await.map(drop)),
        ("gossip", gossip.read(request_with(request, Empty {})).await.map(drop)),
        (
            "server features",
            features.get_supported_methods(request_with(request, Empty {})).await.map(drop),
        ),
    ]
}

#[tokio::test]
async fn wrong_credentials_are_unauthenticated_in_every_method() {
    let node = TestNode::start_with(add_users).await;
    for credentials in ["ada:wrong", "nobody:a-long-password", ":"] {
        for (method, result) in call_all_methods(node.channel().await, Some(credentials)).await {
            let status = result.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{method}: {status}");
            assert_eq!(status.message(), "Unauthenticated");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn anonymous_calls_may_only_discover_the_node() {
    let node = TestNode::start_with(add_users).await;
    for (method, result) in call_all_methods(node.channel().await, None).await {
        match method {
            // Its appends are refused one by one.
            "gossip" | "server features" | "batch append" => result.unwrap(),
            _ => assert_denied(&result.unwrap_err()),
        }
    }
    let mut client = StreamsClient::new(node.channel().await);
    let batch = request_by(None, tokio_stream::iter([batch_request("a", None)]));
    let response = client.batch_append(batch).await.unwrap().into_inner().message().await.unwrap();
    let Some(streams::batch_append_resp::Result::Error(status)) = response.unwrap().result else {
        panic!("the append was accepted")
    };
    assert_eq!((status.code, status.message.as_str()), (7, "AccessDenied"));
    let detail = status.details.unwrap();
    assert_eq!(detail.type_url, "type.googleapis.com/event_store.client.AccessDenied");
    node.stop().await;
}

#[track_caller]
pub(crate) fn assert_denied(status: &Status) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert_eq!(status.message(), "Access Denied");
    assert_eq!(status.metadata().get("exception").unwrap(), "access-denied");
}

#[tokio::test]
async fn official_client_authenticates_with_its_connection_string() {
    let node = TestNode::start_with(add_users).await;
    let client = |credentials: &str| node.client_with(credentials, "tls=false");
    let ada = client("ada:a-long-password@");
    append_events(&ada, "order-1", StreamState::NoStream, new_events(2)).await;
    assert_eq!(read_revisions(&ada, "order-1").await, [0, 1]);
    for credentials in ["ada:wrong@", ""] {
        let refused = client(credentials);
        let read = refused.read_stream("order-1", &ReadStreamOptions::default()).await;
        assert!(matches!(read.err().unwrap(), Error::AccessDenied), "{credentials}");
    }
    node.stop().await;
}

#[tokio::test]
async fn group_statistics_and_records_name_the_user() {
    let node = TestNode::start_with(add_users).await;
    let client = |name: &str| node.client_with(&format!("{name}:a-long-password@"), "tls=false");
    let (bob, ada, admin) = (client("bob"), client("ada"), client("admin"));
    let options = PersistentSubscriptionOptions::default();
    let refused = ada.create_persistent_subscription("order-1", "workers", &options).await;
    assert!(matches!(refused.unwrap_err(), Error::AccessDenied));
    bob.create_persistent_subscription("order-1", "workers", &options).await.unwrap();
    let subscribe = SubscribeToPersistentSubscriptionOptions::default();
    let consumer = ada.subscribe_to_persistent_subscription("order-1", "workers", &subscribe).await;
    let mut consumer = consumer.unwrap();
    append_events(&ada, "order-1", StreamState::NoStream, new_events(1)).await;
    within_deadline(consumer.next()).await.unwrap();
    let info = ada
        .get_persistent_subscription_info(
            "order-1",
            "workers",
            &eventstore::GetPersistentSubscriptionInfoOptions::default(),
        )
        .await
        .unwrap();
    assert_eq!(info.connections[0].username, "ada");
    let records =
        admin.read_stream("$persistentSubscriptionConfig", &ReadStreamOptions::default()).await;
    let record = records.unwrap().next().await.unwrap().unwrap();
    let data: Bytes = record.get_original_event().data.clone();
    assert!(String::from_utf8_lossy(&data).contains(r#""updatedBy":"bob""#), "{data:?}");
    node.stop().await;
}

#[tokio::test]
async fn replaced_users_file_takes_effect_within_seconds() {
    let node = TestNode::start_with(add_users).await;
    let mut client = StreamsClient::new(node.channel().await);
    let delete = |name: &'static str| request_by(Some(name), delete_request("missing", None));
    let code = |result: Result<_, Status>| result.map(drop).unwrap_err().code();
    // The stream does not exist: the version is checked after the rights.
    assert_eq!(code(client.delete(delete("ada")).await), Code::FailedPrecondition);
    assert_eq!(code(client.delete(delete("eve")).await), Code::Unauthenticated);

    let mut file = UsersFile::open(&node.folder().join("users.json")).unwrap();
    file.remove_user("ada").unwrap();
    file.add_user("eve", Vec::new(), PASSWORD).unwrap();
    file.save().unwrap();
    within_deadline(async {
        while code(client.delete(delete("ada")).await) != Code::Unauthenticated {}
    })
    .await;
    assert_eq!(code(client.delete(delete("eve")).await), Code::FailedPrecondition);
    node.stop().await;
}

#[tokio::test]
async fn many_failed_attempts_do_not_stop_authenticated_clients() {
    let node = TestNode::start_with(add_users).await;
    let mut client = GossipClient::new(node.channel().await);
    client.read(request_by(Some("ada"), Empty {})).await.unwrap();
    let mut codes = Vec::new();
    for number in 0..12 {
        let wrong = format!("ada:wrong {number}");
        let refused = client.read(request_with(Some(&wrong), Empty {})).await;
        codes.push(refused.unwrap_err().code());
    }
    assert_eq!(codes[..10], [Code::Unauthenticated; 10]);
    assert_eq!(codes[10..], [Code::ResourceExhausted; 2]);
    let new = client.read(request_by(Some("bob"), Empty {})).await;
    assert_eq!(new.unwrap_err().code(), Code::ResourceExhausted, "not verified before");
    client.read(request_by(Some("ada"), Empty {})).await.unwrap();
    node.stop().await;
}
