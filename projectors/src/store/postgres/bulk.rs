//! Many rows in one statement. Rows that cannot be there yet are copied in, in the binary form of COPY,
//! which is quicker than to look for them; the others are upserted from arrays.

use std::borrow::Cow;
use std::collections::HashSet;

use domain::ids::OrderId;
use sqlx::postgres::PgArguments;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Arguments, AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::values::{escape_text, pg_time};
use crate::projection::{Kind, Record, Table, Value, order_of};
use crate::store::Result;
use crate::store::query::{column_list, on_conflict, quoted};

/// The start of a COPY: a signature, no flags, and no extension of the header.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The number of columns of a row that ends the COPY.
const END: i16 = -1;
/// The length of a value that is null.
const NULL: i32 = -1;
/// PostgreSQL counts microseconds from the year 2000; this many lie between 1970 and 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Writes the rows of a table: those of orders in `begun` by COPY, the others by an upsert.
pub(in crate::store) async fn write_table(
    connection: &mut PgConnection,
    table: &Table,
    records: &[Record],
    begun: &HashSet<OrderId>,
) -> Result<()> {
    let is_begun = |record: &&Record| order_of(record).is_some_and(|id| begun.contains(&id));
    let (begun, others): (Vec<&Record>, Vec<&Record>) = records.iter().partition(is_begun);
    if !begun.is_empty() {
        copy_rows(connection, table, &begun).await?;
    }
    if !others.is_empty() {
        upsert_rows(connection, table, &others).await?;
    }
    Ok(())
}

async fn copy_rows(
    connection: &mut PgConnection,
    table: &Table,
    records: &[&Record],
) -> Result<()> {
    let mut bytes = HEADER.to_vec();
    for record in records {
        let n_columns = i16::try_from(record.len()).unwrap_or(i16::MAX);
        bytes.extend(n_columns.to_be_bytes());
        for value in *record {
            encode_value(value, &mut bytes);
        }
    }
    bytes.extend(END.to_be_bytes());
    let (name, columns) = (table.name, column_list(table));
    let copy = format!("/* {name}.copy */ copy {name} ({columns}) from stdin with (format binary)");
    let mut copying = connection.copy_in_raw(&copy).await?;
    copying.send(bytes).await?;
    copying.finish().await?;
    Ok(())
}

/// Appends a value with its length.
fn encode_value(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Null(_) => bytes.extend(NULL.to_be_bytes()),
        Value::Id(id) => encode_bytes(id.as_bytes(), bytes),
        Value::Text(text) => encode_bytes(escape_text(text).as_bytes(), bytes),
        Value::Document(json) => encode_bytes(json.as_bytes(), bytes),
        Value::Number(number) => encode_bytes(&number.to_be_bytes(), bytes),
        Value::Time(micros) => {
            let micros = pg_time(*micros).timestamp_micros() - EPOCH_MICROS;
            encode_bytes(&micros.to_be_bytes(), bytes);
        }
    }
}

#[expect(clippy::expect_used, reason = "values of an order come in a request of some megabytes")]
fn encode_bytes(value: &[u8], bytes: &mut Vec<u8>) {
    let length = i32::try_from(value.len()).expect("a value is shorter than 2 GiB");
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
}

async fn upsert_rows(
    connection: &mut PgConnection,
    table: &Table,
    records: &[&Record],
) -> Result<()> {
    let (mut selected, mut arrays) = (Vec::new(), Vec::new());
    let mut arguments = PgArguments::default();
    for (index, column) in table.columns.iter().enumerate() {
        let values = records.iter().map(|record| &record[index]);
        let (array, cast, added) = match column.kind {
            Kind::Id => ("uuid[]", "", arguments.add(values.map(as_id).collect::<Vec<_>>())),
            Kind::Number => {
                ("bigint[]", "", arguments.add(values.map(as_number).collect::<Vec<_>>()))
            }
            Kind::Time => {
                ("timestamptz[]", "", arguments.add(values.map(as_time).collect::<Vec<_>>()))
            }
            Kind::Text => ("text[]", "", arguments.add(values.map(as_text).collect::<Vec<_>>())),
            Kind::Document => {
                ("text[]", "::json", arguments.add(values.map(as_text).collect::<Vec<_>>()))
            }
        };
        added.map_err(sqlx::Error::Encode)?;
        selected.push(format!("{}{cast}", quoted(column)));
        arrays.push(format!("${}::{array}", index + 1));
    }
    let (name, columns) = (table.name, column_list(table));
    let (selected, arrays) = (selected.join(", "), arrays.join(", "));
    let upsert = format!(
        "/* {name}.upsert */ insert into {name} ({columns}) select {selected} \
         from unnest({arrays}) as batch ({columns}){}",
        on_conflict(table)
    );
    sqlx::query_with(AssertSqlSafe(upsert), arguments).execute(connection).await?;
    Ok(())
}

fn as_id(value: &Value) -> Option<Uuid> {
    if let Value::Id(id) = value { Some(*id) } else { None }
}

fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(escape_text(text)),
        Value::Document(json) => Some(json.into()),
        Value::Null(_) | Value::Id(_) | Value::Number(_) | Value::Time(_) => None,
    }
}

fn as_number(value: &Value) -> Option<i64> {
    if let Value::Number(number) = value { Some(*number) } else { None }
}

fn as_time(value: &Value) -> Option<DateTime<Utc>> {
    if let Value::Time(micros) = value { Some(pg_time(*micros)) } else { None }
}
