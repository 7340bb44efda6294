//! `dofs node` killed repeatedly under load: acknowledged appends are stored once and in order; others
//! are stored completely or not at all.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use eventstore::{AppendToStreamOptions, Client, EventData, ReadAllOptions, StreamPosition};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::process::{Dofs, Start};
use testkit::{variation, wait};
use tokio::task::JoinSet;

/// Seed of the random times of the kills; `DOFS_TEST_SEED` overrides it.
const SEED: u64 = 24;
const KILLS: usize = 10;
const APPENDERS: usize = 12;
/// Several appenders share each stream, so that appends to one stream are concurrent.
const STREAMS: usize = 4;
const MAX_EVENTS_PER_APPEND: usize = 5;

/// Appender, and number of its append.
type AppendId = (usize, usize);

/// An append that the node acknowledged.
struct Acknowledged {
    append: AppendId,
    last_revision: u64,
    last_position: u64,
}

#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<Vec<Acknowledged>>,
    n_acknowledged: AtomicUsize,
    n_asked: [AtomicUsize; APPENDERS],
}

fn start_node(data: &Path) -> Dofs {
    let data = data.to_str().unwrap();
    let arguments = ["node", "--data", data, "--listen", "127.0.0.1:0"];
    Start::new(env!("CARGO_BIN_EXE_dofs"), &arguments).spawn()
}

fn connect(address: SocketAddr) -> Client {
    Client::new(format!("esdb://{address}?tls=false").parse().unwrap()).unwrap()
}

fn stream_of(appender: usize) -> String {
    format!("ledger-{}", appender % STREAMS)
}

/// Returns the number of events of an append, for appender and reader.
fn count_events((appender, number): AppendId) -> usize {
    1 + (7 * appender + number) % MAX_EVENTS_PER_APPEND
}

/// Appends until the node is killed.
async fn append_until_killed(client: Client, appender: usize, ledger: Arc<Ledger>) {
    loop {
        let number = ledger.n_asked[appender].fetch_add(1, Ordering::Relaxed);
        let append = (appender, number);
        let event = |index: usize| EventData::json("entered", &(append, index)).unwrap();
        let events: Vec<EventData> = (0..count_events(append)).map(event).collect();
        let options = AppendToStreamOptions::default();
        // Without a response, the append is not acknowledged.
        let Ok(written) = client.append_to_stream(stream_of(appender), &options, events).await
        else {
            return;
        };
        ledger.acknowledged.lock().unwrap().push(Acknowledged {
            append,
            last_revision: written.next_expected_version,
            last_position: written.position.commit,
        });
        ledger.n_acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Appends concurrently, and kills the node after this many acknowledgements.
async fn kill_under_load(data: &Path, n_appends: usize, ledger: &Arc<Ledger>) {
    let mut node = start_node(data);
    let client = connect(node.node_address());
    let mut appenders = JoinSet::new();
    for appender in 0..APPENDERS {
        appenders.spawn(append_until_killed(client.clone(), appender, Arc::clone(ledger)));
    }
    let enough = ledger.n_acknowledged.load(Ordering::Relaxed) + n_appends;
    wait::until_async("appends are acknowledged", async || {
        (ledger.n_acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
    })
    .await;
    node.kill();
    appenders.join_all().await;
}

/// Returns the place of the last event of each append. Asserts that each append is stored completely
/// and once.
async fn read_all_appends(client: &Client) -> HashMap<AppendId, (u64, u64)> {
    let options = ReadAllOptions::default().position(StreamPosition::Start).max_count(usize::MAX);
    let mut events = client.read_all(&options).await.unwrap();
    let mut next_revisions = HashMap::<String, u64>::new();
    let mut last_numbers = HashMap::<usize, usize>::new();
    let mut last_places = HashMap::new();
    let mut unfinished: Option<(AppendId, usize)> = None;
    while let Some(event) = events.next().await.unwrap() {
        let event = event.get_original_event();
        if !event.stream_id().starts_with("ledger-") {
            continue;
        }
        let (append, index): (AppendId, usize) = event.as_json().unwrap();
        assert_eq!(event.stream_id(), stream_of(append.0));
        let next = next_revisions.entry(event.stream_id().to_owned()).or_default();
        assert_eq!(event.revision, *next, "{}", event.stream_id());
        *next += 1;
        let wanted = unfinished.unwrap_or((append, 0));
        assert_eq!((append, index), wanted, "an incomplete append");
        if index == 0 {
            let before = last_numbers.insert(append.0, append.1);
            assert!(before.is_none_or(|before| before < append.1), "{append:?} after {before:?}");
        }
        let is_last = index + 1 == count_events(append);
        unfinished = (!is_last).then_some((append, index + 1));
        if is_last {
            last_places.insert(append, (event.revision, event.position.commit));
        }
    }
    assert_eq!(unfinished, None, "an incomplete append");
    last_places
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_node_keeps_acknowledged_appends_in_order_and_once() {
    let data = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::default());
    let mut random = StdRng::seed_from_u64(variation::seed(SEED));
    for _ in 0..KILLS {
        kill_under_load(data.path(), random.random_range(1..400), &ledger).await;
    }
    let mut node = start_node(data.path());
    let recorded = read_all_appends(&connect(node.node_address())).await;
    let acknowledged = ledger.acknowledged.lock().unwrap();
    assert!(acknowledged.len() > KILLS);
    for Acknowledged { append, last_revision, last_position } in acknowledged.iter() {
        let place = recorded.get(append);
        assert_eq!(place, Some(&(*last_revision, *last_position)), "{append:?}");
    }
    assert!(node.terminate().success());
    assert!(event_node::verify_store(data.path()).is_ok());
}
