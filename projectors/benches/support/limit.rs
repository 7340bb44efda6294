//! The time that PostgreSQL needs for the same rows without a projection: COPY, and one upsert of each row
//! into tables with all indexes.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Each table with its columns that are not computed.
const TABLES: [(&str, &str); 3] = [
    (
        "orders",
        "order_id, customer_id, items, total_quantity, status, stage, attempt, deliveries, \
         failure_code, failure_reason, reference, revision, received_at, queued_at, fulfilled_at, \
         failed_at, updated_at",
    ),
    (
        "failed_orders",
        "order_id, stage, code, reason, attempt, deliveries, failed_at, \"order\", resolved_at, \
         revision",
    ),
    ("order_tenants", "order_id, tenant"),
];

/// Measures with the rows of the live tables, which come from `n_events` events.
pub(crate) async fn measure(url: &str, n_events: u64) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let (mut copying, mut upserting) = (Duration::ZERO, Duration::ZERO);
    for (table, columns) in TABLES {
        execute(
            &mut connection,
            format!(
                "create table limit_staged as select {columns} from {table} limit 0; \
                 create table limit_{table} (like {table} including all)"
            ),
        )
        .await;
        let rows = rows_of(&mut connection, table, columns).await;
        let started = Instant::now();
        let statement = "copy limit_staged from stdin with (format binary)";
        let mut copy = connection.copy_in_raw(statement).await.unwrap();
        for chunk in rows {
            copy.send(chunk).await.unwrap();
        }
        copy.finish().await.unwrap();
        copying += started.elapsed();

        let started = Instant::now();
        execute(&mut connection, upsert(table, columns)).await;
        upserting += started.elapsed();
        execute(&mut connection, format!("drop table limit_staged, limit_{table}")).await;
    }
    let (copy, pass) = (copying.as_secs_f64(), upserting.as_secs_f64());
    let rate = super::per_second(n_events, copying + upserting);
    format!("limit    COPY {copy:.2} s and upsert {pass:.2} s: {rate} events/s")
}

/// Returns the table as COPY writes it.
async fn rows_of(connection: &mut PgConnection, table: &str, columns: &str) -> Vec<Vec<u8>> {
    let statement = format!("copy {table} ({columns}) to stdout with (format binary)");
    let mut chunks = connection.copy_out_raw(&statement).await.unwrap();
    let mut rows = Vec::new();
    while let Some(chunk) = chunks.try_next().await.unwrap() {
        rows.push(chunk.to_vec());
    }
    rows
}

fn upsert(table: &str, columns: &str) -> String {
    let changed: Vec<_> =
        columns.split(", ").skip(1).map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "insert into limit_{table} ({columns}) select {columns} from limit_staged \
         on conflict (order_id) do update set {}",
        changed.join(", ")
    )
}

async fn execute(connection: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}
