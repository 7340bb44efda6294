//! Comparison texts of rows.

use domain::order::Stage;
use projectors::{IdRange, ReadModel, RowsText};

use super::project;
use crate::events::{History, id};
use crate::stores::Database;

/// Returns the text of rows with every kind of value, present and null.
pub(crate) async fn text_of_some_rows(database: &Database) -> RowsText {
    let store = database.read_model().await;
    for history in [
        History::of(1).customer("' \" \\ , : ; \u{10FFFF} ü").placed().events(),
        History::of(2).quantity(u64::MAX).received().failed(Stage::Validation, "").events(),
        History::of(3).placed().delivery_failed().failed(Stage::DeadLetter, "transient").events(),
        History::of(4).placed().fulfilled().events(),
    ] {
        project(&store, &history).await;
    }
    text_of(&store).await
}

async fn text_of(store: &ReadModel) -> RowsText {
    store.rows_text(IdRange { after: None, until: id(9) }).await.unwrap()
}

pub(crate) async fn every_column_is_in_the_text_of_the_rows(database: &Database) {
    let mut before = text_of_some_rows(database).await;
    assert_eq!(before.n_orders, 4);
    database
        .execute(
            "insert into order_tenants (order_id, tenant) select order_id, 'ten-1' from orders",
        )
        .await;
    let store = database.read_model().await;
    for table in ["orders", "failed_orders", "order_tenants"] {
        for (column, holds) in database.columns(table).await {
            let other = match holds.as_str() {
                "text" => format!("coalesce(\"{column}\", '') || 'x'"),
                "integer" | "bigint" => format!("coalesce(\"{column}\", 0) - 1"),
                "json" => "'[]'".to_owned(),
                "timestamp with time zone" => {
                    format!("coalesce(\"{column}\", now()) + interval '1 microsecond'")
                }
                // Ids.
                "blob" | "uuid" => continue,
                unknown => panic!("{unknown}"),
            };
            database.execute(&format!("update {table} set \"{column}\" = {other}")).await;
            let after = text_of(&store).await;
            assert_ne!(after, before, "{table}.{column}");
            before = after;
        }
    }
}
