//! Operators' actions: rows of actions on single orders, and the list of all actions.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::ids::CommandId;
use domain::operations::{
    API_KEYS, ApiKeyCreated, ApiKeyRevoked, CONTROL, Control, FailureFilter, Pause, REDRIVES,
    RedriveBegun, RedriveCancelled, RedriveCounts, RedriveEntry, RedriveMoved,
};
use domain::order::{Recorded, Stage};
use event_log::{Cause, Expected, ExpectedLast};
use jiff::Timestamp;
use projectors::{
    ActionPlace, Begin, Checkpoint, Finding, OrderAction, OrderActionFilter, OrderActionKind,
    ReadModel, Repair, Row, RowChanges, SwapAtEnd,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::events::{History, at, id};
use crate::rebuild::rebuild;
use crate::stores::Database;
use crate::system::{EventStore, Projector, get, projected, queries};
use crate::verify::verify;

/// Returns the cause of an operator's request.
fn request(number: u128, actor: &str, second: i64) -> Cause {
    Cause::new(CommandId::for_request(Uuid::from_u128(number)), actor, at(second))
}

async fn list_actions(store: &ReadModel) -> Vec<OrderAction> {
    store.order_actions(&OrderActionFilter::default(), None, 1_000).await.unwrap()
}

/// Appends these events, each with its cause, behind the event with a revision.
async fn append_behind(events: &EventStore, revision: u64, appended: &[(&Recorded, Cause)]) {
    for (revision, (recorded, cause)) in (revision..).zip(appended) {
        let (order_id, expected) = (recorded.event.order_id(), Expected::Revision(revision));
        let event = std::slice::from_ref(&recorded.event);
        events.log.append(order_id, expected, event, cause).await.unwrap();
    }
}

/// Operators redrive and discard order 1, and the sweeper queues its second attempt again. A task redrives
/// order 2. Returns the number of events.
async fn append_histories(events: &EventStore) -> u64 {
    let caused_by =
        |causation: u128, cause: Cause| Cause { causation_id: Uuid::from_u128(causation), ..cause };
    let dead_letter = |number| History::of(number).placed().failed(Stage::DeadLetter, "transient");
    let history =
        dead_letter(1).queued().failed(Stage::DeadLetter, "transient").discarded().events();
    events.append(&history[..5]).await;
    let appended = [
        (&history[5], request(101, "ann", 2_000)),
        (&history[5], caused_by(55, request(102, "sweeper", 2_100))),
        (&history[6], caused_by(56, request(103, "worker", 2_200))),
        (&history[7], request(104, "bob", 2_300)),
    ];
    append_behind(events, 4, &appended).await;
    let history = dead_letter(2).queued().events();
    events.append(&history[..5]).await;
    append_behind(events, 4, &[(&history[5], caused_by(7, request(105, "ann", 2_400)))]).await;
    9 + 6
}

pub(crate) async fn actions_of_operators_agree_with_the_events(database: &Database) {
    let (events, store) = (EventStore::start().await, database.read_model().await);
    let n_events = append_histories(&events).await;
    for batch_size in [1, 100] {
        let projector = Projector::start(&events.log, &store, batch_size);
        projected(&store, n_events).await;
        projector.stop().await.unwrap();
    }
    let expected = list_actions(&store).await;
    let action = |number: u128, second, kind, actor: &str, reason: Option<&str>| OrderAction {
        order_id: id(1),
        event_id: request(number, actor, second).command_id.event_id(id(1), 0),
        acted_at: at(second),
        kind,
        actor: actor.to_owned(),
        reason: reason.map(str::to_owned),
        attempt: 2,
    };
    let discarded = action(104, 2_300, OrderActionKind::Discarded, "bob", Some("given up"));
    assert_eq!(expected, [discarded, action(101, 2_000, OrderActionKind::Redriven, "ann", None)]);
    let (sound, findings) = verify(&events, &store, Repair::Never).await;
    assert!(sound.is_sound(), "{findings:?}");

    // Rows that are changed, missing or invented are found and repaired.
    database.execute("update operator_actions set actor = 'eve' where kind = 'redriven'").await;
    let copied = "insert into operator_actions (order_id, event_id, acted_at, kind, actor, attempt) \
        select order_id, order_id, acted_at, kind, actor, attempt from operator_actions \
        where kind = 'discarded'";
    database.execute(copied).await;
    let (verified, findings) = verify(&events, &store, Repair::Always).await;
    assert_eq!((verified.n_differing, verified.n_mended), (1, 1), "{findings:?}");
    let fields: BTreeSet<_> = findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Difference(it) => Some((it.table, it.field.as_str())),
            Finding::Poison(_) | Finding::Miscounted(_) | Finding::Minute(_) => None,
        })
        .collect();
    let table = "operator_actions";
    assert_eq!(fields, BTreeSet::from([(table, "actor"), (table, "row")]));
    assert_eq!(list_actions(&store).await, expected);
    database.execute("delete from operator_actions where kind = 'redriven'").await;
    let (verified, findings) = verify(&events, &store, Repair::Always).await;
    assert_eq!((verified.n_differing, verified.n_mended), (1, 1), "{findings:?}");

    let (rebuilt, findings) = rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await;
    assert!(rebuilt.unwrap().is_live);
    assert_eq!(findings, []);
    assert_eq!(list_actions(&store).await, expected);

    events.tool().tombstone(id(1)).await;
    let projector = Projector::start(&events.log, &store, 100);
    testkit::wait::until_async("the order is deleted", async || {
        store.order(id(1)).await.unwrap().is_none().then_some(())
    })
    .await;
    projector.stop().await.unwrap();
    assert_eq!(list_actions(&store).await, []);
}

/// Writes rows of actions, as if the projection had made them.
async fn write_actions(store: &ReadModel, actions: &[OrderAction]) {
    let from = store.checkpoint().await.unwrap();
    let records = actions.iter().cloned().map(Row::into_record).collect();
    let written = vec![Vec::new(), Vec::new(), Vec::new(), records];
    let changes = RowChanges { written, ..RowChanges::default() };
    let to = Checkpoint { moved_at: Some(at(1)), ..from };
    store.write(&changes, &from, &to).await.unwrap();
}

fn action(number: u128, kind: OrderActionKind, actor: &str, second: i64) -> OrderAction {
    OrderAction {
        order_id: id(number % 3),
        event_id: Uuid::from_u128(number),
        acted_at: at(second),
        kind,
        actor: actor.to_owned(),
        reason: number.is_multiple_of(2).then(|| format!("reason {number}")),
        attempt: 2,
    }
}

pub(crate) async fn actions_are_listed_by_time_and_filter(database: &Database) {
    use OrderActionKind::{Discarded, Redriven};
    let store = database.read_model().await;
    let rows = [
        action(1, Redriven, "ann", 10),
        action(2, Discarded, "bob", 20),
        action(3, Redriven, "ann", 20),
        action(4, Redriven, "bob", 30),
    ];
    write_actions(&store, &rows).await;
    // The same rows again change nothing.
    write_actions(&store, &rows).await;
    let list = async |filter: OrderActionFilter, after, limit| {
        let actions = store.order_actions(&filter, after, limit).await.unwrap();
        actions.iter().map(|action| action.event_id.as_u128()).collect::<Vec<_>>()
    };
    let all = OrderActionFilter::default;
    assert_eq!(list(all(), None, 10).await, [4, 3, 2, 1]);
    assert_eq!(list(all(), None, 2).await, [4, 3]);
    let after = ActionPlace { at: at(20), event_id: Uuid::from_u128(3) };
    assert_eq!(list(all(), Some(after), 10).await, [2, 1]);
    let of_kind = OrderActionFilter { kind: Some(Redriven), ..all() };
    assert_eq!(list(of_kind, None, 10).await, [4, 3, 1]);
    let of_ann = OrderActionFilter { actor: Some("ann".to_owned()), ..all() };
    assert_eq!(list(of_ann, Some(after), 10).await, [1]);
    let at_20 = OrderActionFilter { from: Some(at(20)), to: Some(at(30)), ..all() };
    assert_eq!(list(at_20, None, 10).await, [3, 2]);
    let read = store.order_actions(&all(), None, 10).await.unwrap();
    assert_eq!(read[1], rows[2]);
}

/// An entry of a journal.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Paused,
    Resumed,
    Begun,
    Moved,
    Cancelled,
    KeyCreated,
    KeyRevoked,
}

impl Entry {
    /// Returns the kind of the action; `None` if the entry is none of an operator.
    fn kind(self) -> Option<&'static str> {
        match self {
            Self::Paused => Some("workers_paused"),
            Self::Resumed => Some("workers_resumed"),
            Self::Begun => Some("redrive_started"),
            Self::Moved => None,
            Self::Cancelled => Some("redrive_cancelled"),
            Self::KeyCreated => Some("api_key_created"),
            Self::KeyRevoked => Some("api_key_revoked"),
        }
    }

    async fn append(self, events: &EventStore, cause: &Cause) {
        let task_id = Uuid::from_u128(77);
        let key_id = "3f0d1a522d7e".to_owned();
        match self {
            Self::Paused | Self::Resumed => {
                let pause = Pause { reason: Some("stocktaking".to_owned()) };
                let control =
                    if let Self::Paused = self { Control::Pause } else { Control::Resume };
                append_entry(events, CONTROL, control.entry_type(), &pause, cause).await;
            }
            Self::Begun => {
                let begun = RedriveBegun {
                    task_id,
                    filter: FailureFilter {
                        code: Some("refused".to_owned()),
                        ..Default::default()
                    },
                    rate_per_second: None,
                    reason: "the gateway is back".to_owned(),
                    actor: cause.actor.clone(),
                    started_at: cause.at,
                    n_total: 3,
                    runner: Uuid::nil(),
                };
                let name = RedriveEntry::Begun(Box::new(begun.clone())).entry_type();
                append_entry(events, REDRIVES, name, &begun, cause).await;
            }
            Self::Moved => {
                let moved = RedriveMoved {
                    task_id,
                    runner: Uuid::nil(),
                    counts: RedriveCounts::default(),
                    batch: Vec::new(),
                    batch_end: None,
                    waiting_for: None,
                    ended_at: None,
                    error: None,
                };
                let name = RedriveEntry::Moved(moved.clone()).entry_type();
                append_entry(events, REDRIVES, name, &moved, cause).await;
            }
            Self::Cancelled => {
                let (actor, cancelled_at) = (cause.actor.clone(), cause.at);
                let cancelled = RedriveCancelled { task_id, actor, cancelled_at };
                let name = RedriveEntry::Cancelled(cancelled.clone()).entry_type();
                append_entry(events, REDRIVES, name, &cancelled, cause).await;
            }
            Self::KeyCreated => {
                let created = ApiKeyCreated {
                    key_id,
                    name: "shop".to_owned(),
                    tenant: None,
                    scopes: Vec::new(),
                    secret_sha256: "a hash".to_owned(),
                    expires_at: None,
                };
                append_entry(events, API_KEYS, ApiKeyCreated::ENTRY_TYPE, &created, cause).await;
            }
            Self::KeyRevoked => {
                let revoked = ApiKeyRevoked { key_id };
                append_entry(events, API_KEYS, ApiKeyRevoked::ENTRY_TYPE, &revoked, cause).await;
            }
        }
    }
}

async fn append_entry(
    events: &EventStore,
    stream: &'static str,
    entry_type: &str,
    content: &impl serde::Serialize,
    cause: &Cause,
) {
    let journal = events.log.store().open_journal(stream);
    journal.append(ExpectedLast::Any, entry_type, content, cause).await.unwrap();
}

/// Reads all pages of a list.
async fn read_pages(api: &axum::Router, query: &str, limit: usize) -> Vec<Value> {
    let mut items = Vec::new();
    let mut next = Some(format!("/v1/ops/actions?limit={limit}{query}"));
    while let Some(uri) = next {
        let page = get(api, &uri).await.body;
        let found = page["items"].as_array().unwrap_or_else(|| panic!("{page}"));
        assert!(found.len() <= limit);
        items.extend(found.iter().cloned());
        let cursor = page["next_cursor"].as_str();
        assert!(cursor.is_none() || found.len() == limit, "{page}");
        next = cursor.map(|cursor| format!("/v1/ops/actions?limit={limit}&cursor={cursor}"));
    }
    items
}

#[tokio::test]
async fn each_action_has_its_actor_reason_and_subject() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    write_actions(&store, &[action(2, OrderActionKind::Redriven, "ann", 5)]).await;
    let entries = [Entry::KeyCreated, Entry::KeyRevoked, Entry::Begun, Entry::Moved, Entry::Paused];
    for (number, entry) in (10..).zip(entries) {
        let second = i64::try_from(number).unwrap();
        entry.append(&events, &request(number, "bob", second)).await;
    }
    let api = queries(Arc::clone(&store), events.log.clone());
    let actions = read_pages(&api, "", 50).await;
    let (task_id, order_id) = (Uuid::from_u128(77), id(2).to_string());
    let expected = |second: i64, kind: &str, reason: Value, task_id: Value, detail: Value| {
        json!({
            "event_id": Uuid::from_u128(second.try_into().unwrap()),
            "kind": kind,
            "at": at(second).to_string(),
            "actor": "bob",
            "reason": reason,
            "order_id": null,
            "task_id": task_id,
            "detail": detail,
        })
    };
    let of_order = json!({
        "event_id": Uuid::from_u128(2),
        "kind": "order_redriven",
        "at": at(5).to_string(),
        "actor": "ann",
        "reason": "reason 2",
        "order_id": order_id,
        "task_id": null,
        "detail": "attempt 2",
    });
    let begun = "3 orders, code refused";
    assert_eq!(
        actions,
        [
            expected(14, "workers_paused", json!("stocktaking"), Value::Null, Value::Null),
            expected(
                12,
                "redrive_started",
                json!("the gateway is back"),
                json!(task_id),
                json!(begun)
            ),
            expected(11, "api_key_revoked", Value::Null, Value::Null, json!("shop")),
            expected(10, "api_key_created", Value::Null, Value::Null, json!("shop")),
            of_order,
        ]
    );
}

fn any_entry() -> impl Strategy<Value = Entry> {
    prop::sample::select(vec![
        Entry::Paused,
        Entry::Resumed,
        Entry::Begun,
        Entry::Moved,
        Entry::Cancelled,
        Entry::KeyCreated,
        Entry::KeyRevoked,
    ])
}

/// Returns kind, actor, time and event of each action, newest first.
type Listed = Vec<(Timestamp, Uuid, String, String)>;

async fn pages_are_the_whole_list(
    rows: Vec<(bool, bool, i64)>,
    entries: Vec<(Entry, bool, i64)>,
    limit: usize,
) {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    let actor = |is_ann| if is_ann { "ann" } else { "bob" };
    let rows: Vec<_> = (1_000..)
        .zip(rows)
        .map(|(number, (is_redriven, is_ann, second))| {
            let kind =
                if is_redriven { OrderActionKind::Redriven } else { OrderActionKind::Discarded };
            action(number * 7_919 % 10_007, kind, actor(is_ann), second)
        })
        .collect();
    write_actions(&store, &rows).await;
    let mut all: Listed = rows
        .iter()
        .map(|row| {
            let kind = match row.kind {
                OrderActionKind::Redriven => "order_redriven",
                OrderActionKind::Discarded => "dead_letter_discarded",
            };
            (row.acted_at, row.event_id, kind.to_owned(), row.actor.clone())
        })
        .collect();
    for (number, (entry, is_ann, second)) in (20_000_u128..).zip(entries) {
        let cause = request(number * 7_919 % 100_003 + 20_000, actor(is_ann), second);
        entry.append(&events, &cause).await;
        let event_id = cause.command_id.as_uuid();
        let kind = entry.kind().map(str::to_owned);
        all.extend(kind.map(|kind| (at(second), event_id, kind, cause.actor.clone())));
    }
    all.sort_by(|one, other| other.cmp(one));
    let api = queries(Arc::clone(&store), events.log.clone());
    let from_one = format!("&from={}", at(1));
    for (query, selects) in [
        ("", (|_| true) as fn(&(Timestamp, Uuid, String, String)) -> bool),
        ("&actor=ann", |(_, _, _, actor)| actor == "ann"),
        ("&kind=order_redriven", |(_, _, kind, _)| kind == "order_redriven"),
        ("&kind=workers_paused", |(_, _, kind, _)| kind == "workers_paused"),
        (&from_one, |(time, ..)| *time >= at(1)),
    ] {
        let listed: Listed = read_pages(&api, query, limit)
            .await
            .iter()
            .map(|item| {
                let text = |member: &str| item[member].as_str().unwrap().to_owned();
                let (time, event_id) = (text("at").parse().unwrap(), text("event_id"));
                (time, event_id.parse().unwrap(), text("kind"), text("actor"))
            })
            .collect();
        let expected: Listed = all.iter().filter(|listed| selects(listed)).cloned().collect();
        assert_eq!(listed, expected, "{query}");
    }
    events.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn pages_of_actions_put_together_are_the_whole_list(
        rows in prop::collection::vec((any::<bool>(), any::<bool>(), 0..3_i64), 0..12),
        entries in prop::collection::vec((any_entry(), any::<bool>(), 0..3_i64), 0..15),
        limit in 1..6_usize,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(pages_are_the_whole_list(rows, entries, limit));
    }
}
