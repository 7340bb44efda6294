//! Many rows in one statement, and rows that are read as one text.

use domain::ids::OrderId;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::projection::{Kind, Record, Table, UnreadableRow, Value};
use crate::store::Result;
use crate::store::database::Connection;
use crate::store::query::{Query, column_list, on_conflict, quoted};

/// Rows of one statement that writes. To hand a statement over to the connection's thread costs more
/// than SQLite needs for a row.
const ROWS_PER_STATEMENT: usize = 64;
/// Orders that are read as one text. At 480 KiB each, the most that a request holds unless it is set
/// otherwise, and twice that in a text of texts, an eighth of what SQLite takes for one
/// (`SQLITE_MAX_LENGTH`, a billion bytes).
const MAX_ORDERS_IN_TEXT: usize = 128;

/// Writes the rows of a table.
pub(in crate::store) async fn write_table(
    connection: &mut Connection,
    table: &Table,
    records: &[Record],
) -> Result<()> {
    for records in records.chunks(ROWS_PER_STATEMENT) {
        let (name, columns) = (table.name, column_list(table));
        let mut query =
            Query::new(format!("/* {name}.upsert */ insert into {name} ({columns}) values "));
        for (index, record) in records.iter().enumerate() {
            query.push(if index == 0 { "" } else { ", " });
            query.push_record(record.clone());
        }
        query.push(&on_conflict(table));
        connection.execute(query).await?;
    }
    Ok(())
}

/// Reads the rows of some orders from a table.
pub(in crate::store) async fn fetch_by_ids(
    connection: &mut Connection,
    table: &Table,
    order_ids: &[OrderId],
) -> Result<Vec<Record>> {
    let mut records = Vec::with_capacity(order_ids.len());
    for order_ids in order_ids.chunks(MAX_ORDERS_IN_TEXT) {
        records.extend(fetch_as_text(connection, table, order_ids).await?);
    }
    Ok(records)
}

/// Reads rows as one text: read row by row, each of their values is copied, and each row wakes its
/// reader.
async fn fetch_as_text(
    connection: &mut Connection,
    table: &Table,
    order_ids: &[OrderId],
) -> Result<Vec<Record>> {
    let cells: Vec<_> = table
        .columns
        .iter()
        .map(|column| connection.dialect().column_as_text(&quoted(column), column.kind))
        .collect();
    let name = table.name;
    let mut query = Query::new(format!(
        "/* {name}.get_many */ select json_group_array(json_array({})) from {name} where true",
        cells.join(", ")
    ));
    query.restrict_ids(connection.dialect(), order_ids);
    let text: Option<String> = connection.fetch_value(query).await?;
    let unreadable = |reason| UnreadableRow { of: name.to_owned(), reason };
    let rows: Vec<Vec<Json>> = serde_json::from_str(text.as_deref().unwrap_or("[]"))
        .map_err(|error| unreadable(error.to_string()))?;
    let read_row = |cells: Vec<Json>| {
        let cells = cells.into_iter().zip(table.columns);
        cells.map(|(cell, column)| read_json_cell(cell, column.kind)).collect::<Option<Record>>()
    };
    let rows = rows.into_iter().map(read_row).collect::<Option<_>>();
    Ok(rows.ok_or_else(|| unreadable("a column holds a value of another type".to_owned()))?)
}

/// Returns the value of a column from a row that was read as JSON; `None` if the column cannot hold it.
fn read_json_cell(cell: Json, kind: Kind) -> Option<Value> {
    match (cell, kind) {
        (Json::Null, kind) => Some(Value::Null(kind)),
        (Json::String(text), Kind::Text) => Some(Value::Text(text)),
        (Json::String(json), Kind::Document) => Some(Value::Document(json)),
        (Json::String(hex), Kind::Id) => Uuid::try_parse(&hex).ok().map(Value::Id),
        (Json::Number(number), Kind::Number) => number.as_i64().map(Value::Number),
        (Json::Number(micros), Kind::Time) => micros.as_i64().map(Value::Time),
        _ => None,
    }
}
