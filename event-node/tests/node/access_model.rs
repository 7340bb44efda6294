//! Generated access control lists, callers and operations, against a small model of the rules.

use std::collections::BTreeMap;

use conformance::protocol::event_store::client::{
    Empty, UuidOption,
    operations::{StopScavengeReq, operations_client::OperationsClient, stop_scavenge_req},
    persistent_subscriptions::{
        self as groups,
        persistent_subscriptions_client::PersistentSubscriptionsClient as GroupsClient,
    },
    streams::{self, streams_client::StreamsClient},
    uuid_option,
};
use eventstore::{Client, EventData, StreamState};
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::{Map, Value, json};
use strum::VariantArray;
use tonic::{Code, Status, transport::Channel};

use crate::{
    fixture::{TestNode, append_events, system_clock},
    raw_http::{proposed_event, stream_identifier},
    users::{USERS, add_users, batch_request, delete_request, request_by},
};

/// Keys of the rights in a list.
const RIGHTS: [&str; 5] = ["$r", "$w", "$d", "$mr", "$mw"];

/// Roles that lists mention: everyone, groups, and users.
const ROLES: [&str; 6] = ["$all", "$admins", "$ops", "team", "ada", "ops"];

/// Streams with lists: a user stream, a system stream, and all events.
const STREAMS: [&str; 3] = ["plain", "$system", "$all"];

/// A revision that no stream has. The rights are checked before the revision, so an operation with it
/// shows its right and changes nothing.
const IMPOSSIBLE_REVISION: u64 = 1 << 40;

/// The roles of each right that a list mentions.
type List = BTreeMap<&'static str, Vec<&'static str>>;

/// A list as metadata or settings contain it.
#[derive(Debug, Clone)]
enum Document {
    Missing,
    /// The flag: whether one role is written without an array.
    Valid(List, bool),
    Invalid(u8),
}

#[derive(Debug, Clone)]
enum Step {
    /// Sets the list of a stream.
    SetList(usize, Document),
    /// Sets the default lists of user streams and of system streams.
    SetDefaults(Document, Document),
    Call(Option<usize>, Operation, usize),
}

#[derive(Debug, Clone, Copy, VariantArray)]
enum Operation {
    Read,
    Subscribe,
    ReadMetadata,
    Append,
    BatchAppend,
    AppendMetadata,
    Delete,
    Tombstone,
    DeleteMetadata,
    ConsumeGroup,
    CreateGroup,
    UpdateGroup,
    DeleteGroup,
    ReplayParked,
    ListGroups,
    StopScavenge,
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(Operation::VARIANTS)
}

fn any_document() -> impl Strategy<Value = Document> {
    let roles = prop::sample::subsequence(&ROLES, 0..3);
    let list = prop::collection::btree_map(prop::sample::select(&RIGHTS), roles, 0..5);
    prop_oneof![
        1 => Just(Document::Missing),
        6 => (list, any::<bool>()).prop_map(|(list, is_short)| Document::Valid(list, is_short)),
        1 => any::<u8>().prop_map(Document::Invalid),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let caller = prop::option::weighted(0.9, 0..USERS.len());
    prop_oneof![
        1 => (0..STREAMS.len(), any_document()).prop_map(|(stream, list)| Step::SetList(stream, list)),
        1 => (any_document(), any_document()).prop_map(|(user, system)| Step::SetDefaults(user, system)),
        6 => (caller, any_operation(), 0..STREAMS.len())
            .prop_map(|(caller, operation, stream)| Step::Call(caller, operation, stream)),
    ]
}

impl Document {
    fn to_json(&self) -> Option<Value> {
        match self {
            Self::Missing => None,
            Self::Valid(list, is_short) => {
                let roles = |roles: &Vec<&str>| match roles[..] {
                    [role] if *is_short => json!(role),
                    _ => json!(roles),
                };
                let rights = list.iter().map(|(right, names)| ((*right).to_owned(), roles(names)));
                Some(Value::Object(rights.collect::<Map<_, _>>()))
            }
            Self::Invalid(kind) => Some(match kind % 3 {
                0 => json!(5),
                1 => json!({"$r": 5}),
                _ => json!({"$unknown": "ada"}),
            }),
        }
    }

    /// Returns the list, or `None` if the document sets none.
    fn list(&self) -> Option<List> {
        match self {
            Self::Valid(list, _) => Some(list.clone()),
            Self::Missing | Self::Invalid(_) => None,
        }
    }

    fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid(_))
    }
}

/// The lists in force, and the rules.
#[derive(Default)]
struct Model {
    lists: BTreeMap<usize, Option<List>>,
    user_default: Option<List>,
    system_default: Option<List>,
}

impl Model {
    fn set_defaults(&mut self, user: &Document, system: &Document) {
        // One invalid list voids the settings.
        let is_valid = !user.is_invalid() && !system.is_invalid();
        self.user_default = user.list().filter(|_| is_valid);
        self.system_default = system.list().filter(|_| is_valid);
    }

    fn is_allowed(&self, caller: Option<usize>, operation: Operation, stream: usize) -> bool {
        use Operation::*;
        let Some(caller) = caller else { return false };
        let (name, caller_groups) = USERS[caller];
        let is_admin = name == "admin" || caller_groups.contains(&"$admins");
        let is_operator = is_admin || name == "ops" || caller_groups.contains(&"$ops");
        let has = |list: Option<&Option<List>>, is_system: bool, right: &str| {
            let default = if is_system { &self.system_default } else { &self.user_default };
            let own = list.and_then(Option::as_ref).and_then(|list| list.get(right));
            let roles = own.or_else(|| default.as_ref().and_then(|list| list.get(right)));
            let built_in = vec![if is_system { "$admins" } else { "$all" }];
            let roles = roles.unwrap_or(&built_in);
            let names = |role: &&str| *role == name || caller_groups.contains(role);
            is_admin || roles.iter().any(|role| *role == "$all" || names(role))
        };
        let is_system = STREAMS[stream].starts_with('$');
        let has_right = |right| has(self.lists.get(&stream), is_system, right);
        match operation {
            Append | BatchAppend | Delete | Tombstone if STREAMS[stream] == "$all" => false,
            DeleteMetadata => false,
            Read | Subscribe | ConsumeGroup => has_right("$r"),
            Append | BatchAppend => has_right("$w"),
            Delete | Tombstone => has_right("$d"),
            ReadMetadata => has_right("$mr"),
            AppendMetadata => has_right("$mw"),
            CreateGroup | UpdateGroup | DeleteGroup | StopScavenge => is_operator,
            // The parked stream is a system stream without an own list.
            ReplayParked => is_operator || has(None, true, "$w"),
            ListGroups => true,
        }
    }
}

/// The node under test, and the names of the streams of one case.
struct Case<'a> {
    admin: &'a Client,
    channel: Channel,
    number: u32,
}

impl Case<'_> {
    /// Returns the name of a stream. Every case has its own streams, except `$all`.
    fn stream(&self, index: usize) -> String {
        match STREAMS[index] {
            "$all" => "$all".to_owned(),
            stream => format!("{stream}-{}", self.number),
        }
    }

    async fn append_json(&self, stream: &str, event_type: &str, data: Value) {
        let event = EventData::json(event_type, &data).unwrap().id(system_clock().new_id());
        append_events(self.admin, stream, StreamState::Any, [event]).await;
    }

    async fn set_list(&self, index: usize, list: &Document) {
        let mut metadata = json!({"owner": "test"});
        metadata
            .as_object_mut()
            .unwrap()
            .extend(list.to_json().map(|acl| ("$acl".to_owned(), acl)));
        self.append_json(&format!("$${}", self.stream(index)), "$metadata", metadata).await;
    }

    async fn set_defaults(&self, user: &Document, system: &Document) {
        let lists = [("$userStreamAcl", user), ("$systemStreamAcl", system)];
        let lists =
            lists.into_iter().filter_map(|(key, list)| Some((key.to_owned(), list.to_json()?)));
        self.append_json("$settings", "$settings", Value::Object(lists.collect())).await;
    }

    /// Performs an operation. Returns whether it was denied.
    async fn is_denied(&self, caller: Option<usize>, operation: Operation, stream: usize) -> bool {
        let name = caller.map(|index| USERS[index].0);
        let status = Box::pin(self.perform(name, operation, &self.stream(stream))).await;
        status.err().is_some_and(|status| {
            assert_ne!(status.code(), Code::Unauthenticated, "{status}");
            status.code() == Code::PermissionDenied
        })
    }

    async fn perform(
        &self,
        caller: Option<&str>,
        operation: Operation,
        stream: &str,
    ) -> Result<(), Status> {
        use groups::replay_parked_req as replay;
        let mut streams = StreamsClient::new(self.channel.clone());
        let mut groups = GroupsClient::new(self.channel.clone());
        let metastream = format!("$${stream}");
        match operation {
            Operation::Read => {
                streams.read(request_by(caller, read(stream, false))).await.map(drop)
            }
            Operation::Subscribe => {
                streams.read(request_by(caller, read(stream, true))).await.map(drop)
            }
            Operation::ReadMetadata => {
                streams.read(request_by(caller, read(&metastream, false))).await.map(drop)
            }
            Operation::Append => streams.append(request_by(caller, append(stream))).await.map(drop),
            Operation::AppendMetadata => {
                streams.append(request_by(caller, append(&metastream))).await.map(drop)
            }
            Operation::BatchAppend => self.batch_append(caller, stream).await,
            Operation::Delete => streams
                .delete(request_by(caller, delete_request(stream, Some(IMPOSSIBLE_REVISION))))
                .await
                .map(drop),
            Operation::DeleteMetadata => streams
                .delete(request_by(caller, delete_request(&metastream, Some(IMPOSSIBLE_REVISION))))
                .await
                .map(drop),
            Operation::Tombstone => {
                let request = streams::TombstoneReq {
                    options: delete_request(stream, Some(IMPOSSIBLE_REVISION)).options,
                };
                streams.tombstone(request_by(caller, request)).await.map(drop)
            }
            Operation::ConsumeGroup => {
                let request = tokio_stream::iter([consume(stream)]);
                groups.read(request_by(caller, request)).await.map(drop)
            }
            Operation::CreateGroup => {
                groups.create(request_by(caller, groups::CreateReq::default())).await.map(drop)
            }
            Operation::UpdateGroup => {
                groups.update(request_by(caller, groups::UpdateReq::default())).await.map(drop)
            }
            Operation::DeleteGroup => {
                groups.delete(request_by(caller, groups::DeleteReq::default())).await.map(drop)
            }
            Operation::ReplayParked => {
                let options = replay::Options {
                    group_name: "missing".to_owned(),
                    source: Some(replay::options::Source::All(Empty {})),
                    stop_at_option: Some(replay::options::StopAtOption::NoLimit(Empty {})),
                };
                let request = groups::ReplayParkedReq { options: Some(options) };
                groups.replay_parked(request_by(caller, request)).await.map(drop)
            }
            Operation::ListGroups => {
                groups.list(request_by(caller, groups::ListReq::default())).await.map(drop)
            }
            Operation::StopScavenge => {
                let options = stop_scavenge_req::Options { scavenge_id: "missing".to_owned() };
                let request = StopScavengeReq { options: Some(options) };
                let mut operations = OperationsClient::new(self.channel.clone());
                operations.stop_scavenge(request_by(caller, request)).await.map(drop)
            }
        }
    }

    /// The response to a batch reports a refusal in a message, not in the status of the call.
    async fn batch_append(&self, caller: Option<&str>, stream: &str) -> Result<(), Status> {
        let request = request_by(
            caller,
            tokio_stream::iter([batch_request(stream, Some(IMPOSSIBLE_REVISION))]),
        );
        let mut streams = StreamsClient::new(self.channel.clone());
        let mut responses = streams.batch_append(request).await?.into_inner();
        let response = responses.message().await?.unwrap();
        let Some(streams::batch_append_resp::Result::Error(error)) = response.result else {
            panic!("the impossible revision was accepted")
        };
        Err(Status::new(error.code.into(), error.message))
    }
}

fn read(stream: &str, is_subscription: bool) -> streams::ReadReq {
    use streams::read_options::{
        All, Extent, FilterOption, Source, Stream, all::PositionOption, stream::RevisionOption,
    };
    let source = if stream == "$all" {
        Source::All(All { position_option: Some(PositionOption::Start(Empty {})) })
    } else {
        Source::Stream(Stream {
            stream_identifier: Some(stream_identifier(stream)),
            revision_option: Some(RevisionOption::Start(Empty {})),
        })
    };
    let extent = if is_subscription { Extent::Subscription(Empty {}) } else { Extent::Count(1) };
    let options = streams::ReadOptions {
        source: Some(source),
        extent: Some(extent),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption { content: Some(uuid_option::Content::String(Empty {})) }),
        ..streams::ReadOptions::default()
    };
    streams::ReadReq { options: Some(options) }
}

fn append(stream: &str) -> impl tokio_stream::Stream<Item = streams::AppendReq> + use<> {
    use streams::append_req::{Content, Options, options::ExpectedStreamRevision};
    let options = Options {
        stream_identifier: Some(stream_identifier(stream)),
        expected_stream_revision: Some(ExpectedStreamRevision::Revision(IMPOSSIBLE_REVISION)),
    };
    let contents = [Content::Options(options), Content::ProposedMessage(proposed_event())];
    tokio_stream::iter(contents.map(|content| streams::AppendReq { content: Some(content) }))
}

fn consume(stream: &str) -> groups::ReadReq {
    use groups::read_req::{Content, Options, options::Source};
    let source = if stream == "$all" {
        Source::All(Empty {})
    } else {
        Source::StreamIdentifier(stream_identifier(stream))
    };
    let options = Options {
        group_name: "missing".to_owned(),
        buffer_size: 1,
        uuid_option: None,
        source: Some(source),
    };
    groups::ReadReq { content: Some(Content::Options(options)) }
}

async fn run_case(case: &Case<'_>, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    case.set_list(2, &Document::Missing).await;
    case.set_defaults(&Document::Missing, &Document::Missing).await;
    for step in steps {
        match step {
            Step::SetList(stream, list) => {
                case.set_list(*stream, list).await;
                model.lists.insert(*stream, list.list());
            }
            Step::SetDefaults(user, system) => {
                case.set_defaults(user, system).await;
                model.set_defaults(user, system);
            }
            Step::Call(caller, operation, stream) => {
                let is_denied = case.is_denied(*caller, *operation, *stream).await;
                let expected = !model.is_allowed(*caller, *operation, *stream);
                prop_assert_eq!(is_denied, expected, "{:?}", step);
            }
        }
    }
    Ok(())
}

#[test]
fn generated_lists_and_operations_match_the_model() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (node, admin, channel) = runtime.block_on(async {
        let node = TestNode::start_with(add_users).await;
        let admin = node.client_with("admin:a-long-password@", "tls=false");
        let channel = node.channel().await;
        (node, admin, channel)
    });
    let number = std::cell::Cell::new(0);
    // A failure prints the steps and the seed of the case.
    proptest!(ProptestConfig::with_cases(60), |(steps in prop::collection::vec(any_step(), 1..40))| {
        number.set(number.get() + 1);
        let case = Case { admin: &admin, channel: channel.clone(), number: number.get() };
        runtime.block_on(run_case(&case, &steps))?;
    });
    runtime.block_on(node.stop());
}
