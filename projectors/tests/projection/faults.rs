//! Recovery of the projector from failures of every statement.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use domain::order::Stage;
use futures::future::join_all;
use projectors::{migrate, open};
use tokio::time::Instant;
use tracing::Level;

use crate::events::{History, id};
use crate::journal::Journal;
use crate::stores::Database;
use crate::system::{EventStore, Projector, get, projected, queries};

/// The statements of a projection step that change rows: table and operation.
const WRITES: [(&str, &str); 7] = [
    ("projection_checkpoints", "update"),
    ("orders", "insert"),
    ("failed_orders", "insert"),
    ("order_tenants", "insert"),
    ("projection_counts", "insert"),
    ("projection_minutes", "insert"),
    ("projection_minutes", "delete"),
];
/// The tables that a projection step reads.
const READ_TABLES: [&str; 4] =
    ["orders", "failed_orders", "order_tenants", "projection_checkpoints"];
/// A minute that the next batch drops, so that there is a row to delete.
const OLD_MINUTE: &str = "insert into projection_minutes \
    (name, minute, n_events, n_received, n_fulfilled, n_failed, n_refused) \
    values ('orders', -9000, 0, 0, 0, 0, 0);";
/// More than a pool has connections.
const MANY_READERS: usize = 20;
/// How long the projection may take to resume once its database takes writes again.
const RECOVERY: Duration = Duration::from_secs(10);

/// SQL that makes a statement fail, and SQL that removes the fault.
pub(crate) struct Fault {
    pub(crate) install: String,
    pub(crate) remove: String,
}

impl Fault {
    /// Fails an operation on the table and ends the transaction, as SQLite does when the disk is
    /// full or fails.
    fn ends_transaction(table: &str, action: &str) -> Self {
        Self {
            install: format!(
                "{OLD_MINUTE} create trigger fault before {action} on {table} begin \
                 select raise(rollback, 'disk full'); end"
            ),
            remove: "drop trigger fault".to_owned(),
        }
    }

    /// Runs PL/pgSQL before an operation on the table.
    fn runs(table: &str, action: &str, statement: &str) -> Self {
        let row = if action == "delete" { "old" } else { "new" };
        Self {
            install: format!(
                "{OLD_MINUTE} create function fault() returns trigger language plpgsql as \
                 $$ begin {statement}; return {row}; end $$; \
                 create trigger fault before {action} on {table} \
                 for each row execute function fault()"
            ),
            remove: format!("drop trigger fault on {table}; drop function fault"),
        }
    }

    /// Lets the statement succeed, and fails the commit.
    pub(crate) fn at_commit(database: &Database, table: &str, action: &str) -> Self {
        match database {
            Database::Sqlite(_) => Self {
                install: format!(
                    "create table fault_parent (id integer primary key); \
                     create table fault_child (id integer references fault_parent (id) \
                     deferrable initially deferred); \
                     create trigger fault after {action} on {table} begin \
                     insert into fault_child values (1); end"
                ),
                remove: "drop trigger fault; drop table fault_child; drop table fault_parent"
                    .to_owned(),
            },
            Database::Postgres(_) => Self {
                install: format!(
                    "create function fault() returns trigger language plpgsql as \
                     $$ begin raise exception 'fault' using errcode = '40001'; end $$; \
                     create constraint trigger fault after {action} on {table} \
                     deferrable initially deferred for each row execute function fault()"
                ),
                remove: format!("drop trigger fault on {table}; drop function fault"),
            },
        }
    }

    /// Fails reads of the table.
    fn hides(table: &str) -> Self {
        Self {
            install: format!("alter table {table} rename to hidden"),
            remove: format!("alter table hidden rename to {table}"),
        }
    }
}

/// Under each fault in turn, the projector reports one failure with its cause, and one recovery.
async fn assert_survives(database: &Database, faults: Vec<Fault>) {
    let (journal, events) = (Journal::listen(), EventStore::start().await);
    let store = database.read_model().await;
    let projector = Projector::start(&events.log, &store, 100);
    for ((number, n_events), fault) in (1..).zip((5..).step_by(5)).zip(&faults) {
        database.execute(&fault.install).await;
        let order = History::of(number).placed().failed(Stage::Fulfillment, "refused").events();
        events.append_of(Some("acme"), id(number), &order).await;
        journal.heard(1, "Projection interrupted").await;
        // It fails more than once, and logs that once.
        journal.heard(2, "Projection failed").await;
        database.execute(&fault.remove).await;
        projected(&store, n_events).await;
        journal.heard(1, "Projection resumed").await;

        let interrupted = journal.lines("Projection interrupted");
        assert_eq!(interrupted.len(), 1, "{}: {interrupted:?}", fault.install);
        assert_eq!(interrupted[0].level, Level::WARN);
        assert!(interrupted[0].text.contains("error="), "{interrupted:?}");
        let resumed = journal.lines("Projection resumed");
        assert_eq!(resumed[0].level, Level::INFO);
        assert!(resumed[0].text.contains("duration_ms="), "{resumed:?}");
        journal.clear();
    }
    projector.stop().await.unwrap();
    let n_failed = store.count_orders().await.unwrap().n_failed_fulfillment;
    assert_eq!(n_failed, faults.len() as u64);
    assert_eq!(store.find_miscounted().await.unwrap(), []);
}

#[tokio::test]
async fn projector_survives_failing_sqlite_statements() {
    let database = Database::sqlite();
    let mut faults: Vec<_> =
        WRITES.iter().map(|(table, action)| Fault::ends_transaction(table, action)).collect();
    faults.push(Fault::at_commit(&database, "orders", "insert"));
    faults.extend(READ_TABLES.map(Fault::hides));
    assert_survives(&database, faults).await;
}

#[tokio::test]
async fn projector_survives_failing_postgres_statements() {
    let database = Database::postgres().await;
    let serialization = "raise exception 'fault' using errcode = '40001'";
    let mut faults: Vec<_> =
        WRITES.iter().map(|(table, action)| Fault::runs(table, action, serialization)).collect();
    faults.push(Fault::at_commit(&database, "orders", "insert"));
    faults.extend(READ_TABLES.map(Fault::hides));
    assert_survives(&database, faults).await;
}

#[tokio::test]
async fn projector_survives_a_lost_postgres_connection() {
    let database = Database::postgres().await;
    let lost = "perform pg_terminate_backend(pg_backend_pid())";
    let faults = WRITES.iter().map(|(table, action)| Fault::runs(table, action, lost));
    assert_survives(&database, faults.collect()).await;
}

#[tokio::test]
async fn read_only_sessions_are_replaced_after_a_failover() {
    let (journal, events) = (Journal::listen(), EventStore::start().await);
    let database = Database::postgres().await;
    migrate(&database.url()).await.unwrap();
    let store = open(&database.url()).unwrap();
    let api = queries(Arc::clone(&store), events.log.clone());
    let projector = Projector::start(&events.log, &store, 100);
    events.append(&History::of(1).placed().events()).await;
    projected(&store, 4).await;

    let name = database.url().rsplit('/').next().unwrap().to_owned();
    database
        .execute(&format!(
            "alter database {name} set default_transaction_read_only = on; \
             select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid()"
        ))
        .await;
    events.append(&History::of(2).placed().events()).await;
    journal.heard(1, "read-only transaction").await;
    // Lists are still read, by all sessions of the pool.
    for list in join_all((0..MANY_READERS).map(|_| get(&api, "/v1/orders"))).await {
        assert_eq!(list.status, StatusCode::OK, "{}", list.body);
    }

    database
        .execute(&format!(
            "begin read write; alter database {name} reset default_transaction_read_only; commit"
        ))
        .await;
    let writable = Instant::now();
    projected(&store, 8).await;
    assert!(writable.elapsed() < RECOVERY, "{:?}", writable.elapsed());
    projector.stop().await.unwrap();
    let list = get(&api, "/v1/orders").await;
    assert_eq!(list.order_ids().len(), 2, "{}", list.body);
    let resumed = journal.lines("Projection resumed");
    assert_eq!(resumed.len(), 1, "{resumed:?}");
}
