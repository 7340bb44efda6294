//! An idle system writes nothing.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tokio::time::{Instant, sleep};

use crate::events::History;
use crate::journal::Journal;
use crate::stores::Database;
use crate::system::{EventStore, PATIENCE, POLL, Projector, projected};

/// First words of statements that may write, after their name.
const WRITES: [&str; 4] = ["begin", "update", "insert", "delete"];

/// How long an idle system is watched: four lease checks of the holder.
const WATCHED: Duration = Duration::from_secs(2);

#[tokio::test]
async fn idle_projector_writes_nothing_in_sqlite() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    let projector = Projector::start(&events.log, &store, 100);
    events.append(&History::of(1).placed().fulfilled().events()).await;
    projected(&store, 5).await;

    // Changes with every commit of another connection that changed a page.
    let mut observer = SqliteConnection::connect(&database.url()).await.unwrap();
    let mut version = async || -> i64 {
        sqlx::query_scalar("pragma data_version").fetch_one(&mut observer).await.unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut since) = (version().await, Instant::now());
    while since.elapsed() < WATCHED {
        let now = version().await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(Instant::now() < deadline, "something is written again and again");
        sleep(POLL).await;
    }
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn idle_projector_writes_nothing_in_postgres() {
    let (journal, events) = (Journal::listen(), EventStore::start().await);
    let database = Database::postgres().await;
    let store = database.read_model().await;
    let projector = Projector::start(&events.log, &store, 100);
    events.append(&History::of(1).placed().fulfilled().events()).await;
    projected(&store, 5).await;
    // The checkpoint may move once more after the batch.
    journal.clear();
    journal.heard(3, "lease.get").await;

    journal.clear();
    journal.heard(4, "lease.get").await;
    let writes: Vec<_> = WRITES.iter().flat_map(|statement| journal.lines(statement)).collect();
    assert!(writes.is_empty(), "{writes:?}");
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn holder_that_answers_challenges_keeps_its_turn() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    let projectors = [(), ()].map(|()| Projector::start(&events.log, &store, 100));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lease = store.lease().await.unwrap();
        assert!(lease.epoch <= 1, "{lease:?}");
        // A challenge and its answer are two writes; the first two writes take the lease.
        if lease.beat >= 2 + 3 * 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{lease:?}");
        sleep(POLL).await;
    }
    for projector in projectors {
        projector.stop().await.unwrap();
    }
}
