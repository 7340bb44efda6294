//! Random damage to every file of a store is found or harmless, and never leads to a wrong
//! response. The advice of each error message works. `DOFS_TEST_DAMAGE_TRIALS` and `DOFS_TEST_SEED`
//! set the number of trials and the first seed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use event_node::{salvage_store, verify_store};
use eventstore::{
    AppendToStreamOptions, Client, Error, EventData, ReadStreamOptions, StreamState,
    TombstoneStreamOptions,
    operations::{self, OperationalOptions},
};
use tempfile::TempDir;
use testkit::variation;
use tokio_util::sync::CancellationToken;

use crate::fixture::{TestNode, append_events, new_events, start_node, within_deadline};

/// Default number of trials.
const TRIALS: u64 = 120;

const ORDERS: u64 = 12;

/// A generator of pseudo-random numbers.
struct Random(u64);

impl Random {
    fn next_below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// A store with two chunks and an index, and a copy of its earlier state.
struct SampleStore {
    folder: TempDir,
    earlier: TempDir,
    /// Events of the first append to the first order. A test repeats the append.
    first: Vec<EventData>,
}

async fn create_sample() -> SampleStore {
    let node = TestNode::start().await;
    let client = node.client();
    let first = new_events(1);
    append_events(&client, "order-0", StreamState::NoStream, first.clone()).await;
    for order in 0..ORDERS {
        append_events(&client, &format!("order-{order}"), StreamState::Any, new_events(2)).await;
        append_events(&client, "gone", StreamState::Any, new_events(3)).await;
    }
    client.tombstone_stream("gone", &TombstoneStreamOptions::default()).await.unwrap();
    let folder = node.stop().await;
    let earlier = copy_folder(folder.path());
    let node = TestNode::start_in(folder).await;
    let client = node.client();
    let settings = format!("esdb://127.0.0.1:{}?tls=false", node.port());
    let operator = operations::Client::new(settings.parse().unwrap()).unwrap();
    let scavenge = operator.start_scavenge(1, 0, &OperationalOptions::default()).await.unwrap();
    let stream = format!("$scavenges-{}", scavenge.id());
    within_deadline(async {
        let options = eventstore::SubscribeToStreamOptions::default()
            .start_from(eventstore::StreamPosition::Start);
        let mut scavenge_events = client.subscribe_to_stream(stream, &options).await;
        while scavenge_events.next().await.unwrap().get_original_event().event_type
            != "$scavengeCompleted"
        {}
    })
    .await;
    for order in 0..ORDERS {
        append_events(&client, &format!("order-{order}"), StreamState::Any, new_events(2)).await;
    }
    let folder = node.stop().await;
    verify_store(folder.path()).unwrap();
    SampleStore { folder, earlier, first }
}

fn list_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| !file.ends_with("lock"))
        .collect();
    files.sort();
    files
}

fn copy_folder(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in list_files(folder) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    copy
}

/// Damages one file. Returns a description of the damage.
fn damage_file(folder: &Path, earlier: &Path, random: &mut Random) -> String {
    let files = list_files(folder);
    let file = &files[usize::try_from(random.next_below(files.len() as u64)).unwrap()];
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let mut bytes = fs::read(file).unwrap();
    let length = bytes.len() as u64;
    let at = usize::try_from(random.next_below(length)).unwrap();
    match random.next_below(5) {
        0 => {
            let bit = random.next_below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            fs::write(file, bytes).unwrap();
            format!("bit {bit} of byte {at} of {name} flipped")
        }
        1 => {
            let page = at / 4_096 * 4_096;
            let end = bytes.len().min(page + 4_096);
            bytes[page..end].fill(0);
            fs::write(file, bytes).unwrap();
            format!("page at {page} of {name} zeroed")
        }
        2 => {
            fs::write(file, &bytes[..at]).unwrap();
            format!("{name} cut off at {at} of {length}")
        }
        3 => {
            let source = earlier.join(&name);
            if source.exists() {
                fs::copy(source, file).unwrap();
            } else {
                fs::remove_file(file).unwrap();
            }
            format!("earlier {name} in place")
        }
        _ => {
            fs::remove_file(file).unwrap();
            format!("{name} deleted")
        }
    }
}

/// Returns the revisions of a stream, or `None` if the store reports damage.
async fn try_read_revisions(client: &Client, stream: &str, trial: &str) -> Option<Vec<u64>> {
    let mut read = client.read_stream(stream, &ReadStreamOptions::default()).await.unwrap();
    let mut revisions = Vec::new();
    loop {
        match read.next().await {
            Ok(Some(event)) => revisions.push(event.get_original_event().revision),
            Ok(None) => return Some(revisions),
            Err(Error::ResourceNotFound) => return Some(Vec::new()),
            Err(error) => {
                let text = format!("{error:?}");
                assert!(text.contains("damaged"), "{trial}: {text}");
                return None;
            }
        }
    }
}

/// Checks that each order has all its events, or that the store reports damage.
async fn check_orders(client: &Client, may_be_shorter: bool, trial: &str) {
    for order in 0..ORDERS {
        let wanted: Vec<u64> = (0..if order == 0 { 5 } else { 4 }).collect();
        if let Some(revisions) = try_read_revisions(client, &format!("order-{order}"), trial).await
        {
            let is_right = revisions == wanted
                || (may_be_shorter && wanted.starts_with(&revisions) && !revisions.is_empty());
            assert!(is_right, "{trial}: order-{order} has {revisions:?}");
        }
    }
}

async fn check_repetition(client: &Client, first: &[EventData], trial: &str) {
    let options = AppendToStreamOptions::default().stream_state(StreamState::NoStream);
    // The append is recognised, or fails because of damage. It is never written again.
    if let Ok(written) = client.append_to_stream("order-0", &options, first.to_vec()).await {
        assert_eq!(written.next_expected_version, 0, "{trial}");
    }
}

async fn try_damage(sample: &SampleStore, seed: u64) {
    let mut random = Random(seed);
    random.next_below(1);
    let folder = copy_folder(sample.folder.path());
    let trial =
        format!("seed {seed}: {}", damage_file(folder.path(), sample.earlier.path(), &mut random));
    let is_valid = verify_store(folder.path()).is_ok();
    let stop = CancellationToken::new();
    match start_node(folder.path(), &stop).await {
        Ok(node) => {
            let port = node.address().port();
            let settings = format!("esdb://127.0.0.1:{port}?tls=false&defaultDeadline=60000");
            let client = Client::new(settings.parse().unwrap()).unwrap();
            // A log that ends earlier with a complete entry looks like a restored backup. `verify`
            // reports it, and the node logs a warning.
            let may_be_shorter = !is_valid && trial.contains("events");
            check_orders(&client, may_be_shorter, &trial).await;
            check_repetition(&client, &sample.first, &trial).await;
            stop.cancel();
            within_deadline(node.wait_until_ended()).await.unwrap();
        }
        Err(error) => {
            let reason = format!("{error}: {}", std::error::Error::source(&error).unwrap());
            let has_advice =
                ["restore the data folder from a backup", "--allow-empty", "a folder of their own"]
                    .iter()
                    .any(|advice| reason.contains(advice));
            assert!(has_advice, "{trial}: {reason}");
            assert!(!is_valid, "{trial}: valid for verify, but the node does not start: {reason}");
            check_salvage(folder.path(), &trial).await;
        }
    }
}

/// Checks that a salvage creates a valid store with events in order.
async fn check_salvage(data: &Path, trial: &str) {
    let to = tempfile::tempdir().unwrap();
    salvage_store(data, to.path(), |_| {}).unwrap_or_else(|error| panic!("{trial}: {error}"));
    verify_store(to.path()).unwrap_or_else(|error| panic!("{trial}: {error}"));
    let node = TestNode::start_in(to).await;
    let client = node.client();
    for order in 0..ORDERS {
        let revisions =
            try_read_revisions(&client, &format!("order-{order}"), trial).await.unwrap();
        assert!(revisions.is_sorted() && revisions.len() <= 5, "{trial}: {revisions:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn damage_is_found_or_harmless() {
    let sample = create_sample().await;
    let first_seed = variation::seed(1);
    let trials = variation::number("DOFS_TEST_DAMAGE_TRIALS", TRIALS);
    for seed in first_seed..first_seed + trials {
        try_damage(&sample, seed).await;
    }
}
