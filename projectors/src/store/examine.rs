//! Examination and repair of the tables while they are in use.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::ids::OrderId;
use jiff::Timestamp;
use uuid::Uuid;

use super::checkpoint::interrupt_projector;
use super::query::{Dialect, Query, key_list, query, quoted, select};
use super::rows::{delete_rows, group_by_order, write_rows};
use super::{Checkpoint, ReadModel, Result, StoreError};
use crate::projection::{
    Column, Kind, OrderRecords, Projection, Record, RowChanges, Table, order_of, row,
};

row! {
    /// The outcome of a verification of all rows.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct LastVerification {
        /// When it ended, by the clock of the process that verified.
        pub verified_at: Timestamp,
        /// Orders that were verified.
        pub n_orders: u64,
        /// Orders that differed, events that cannot be projected, and statistics that were off.
        pub n_findings: u64,
    }
}

/// Consecutive orders.
#[derive(Debug, Clone, Copy)]
pub struct IdRange {
    /// The last order before the range; `None` if the range begins with the first order.
    pub after: Option<OrderId>,
    /// The last order of the range.
    pub until: OrderId,
}

/// Rows of consecutive orders.
pub struct RowsPage {
    pub rows: BTreeMap<OrderId, OrderRecords>,
    /// The last order up to which the rows are complete; `None` if there are no others.
    pub until: Option<OrderId>,
}

row! {
    /// The rows of consecutive orders, as a text that is the same for the same rows in either
    /// database. So two databases can be compared without decoding any row.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RowsText {
        /// Number of orders that have a row in the main table.
        pub n_orders: u64,
        text: String,
    }
}

/// Returns the smallest id after another one, or the smallest of all.
fn first_id_after(after: Option<OrderId>) -> OrderId {
    OrderId(after.map_or(Uuid::nil(), |id| Uuid::from_u128(id.0.as_u128().saturating_add(1))))
}

/// Selects ids from all tables of the projection: `part` is the end of the statement for one table,
/// `end` that of the whole.
fn select_ids(name: &str, projection: &Projection, part: &str, end: &str) -> String {
    let table = |table: &Table| {
        let name = table.name;
        // Distinct: a table may have several rows of an order.
        format!("select * from (select distinct order_id from {name} {part}) as ids_of_{name}")
    };
    let tables: Vec<_> = projection.tables.iter().map(table).collect();
    let tables = tables.join(" union ");
    format!("/* {name} */ select order_id from ({tables}) as ids {end}")
}

/// Returns the statement that reads the rows of the ids from `$1` to `$2` as a text.
fn select_rows_text(dialect: Dialect, projection: &Projection) -> String {
    const RANGE: &str = "where order_id >= $1 and order_id <= $2";
    let column_text = |column: &Column| {
        let text = dialect.column_as_text(&quoted(column), column.kind);
        match column.kind {
            Kind::Id | Kind::Number | Kind::Time => format!("{text}, ','"),
            // The length keeps a text apart from its neighbours; a null has no length.
            Kind::Text | Kind::Document => format!("octet_length({text}), ':', {text}"),
        }
    };
    let rows = |table: &Table| {
        let values: Vec<_> = table.columns.iter().map(column_text).collect();
        format!(
            "coalesce((select string_agg(line, '') from (select concat({}) as line \
             from {} {RANGE} order by {}) as lines), '')",
            values.join(", "),
            table.name,
            key_list(table)
        )
    };
    let texts: Vec<_> = projection.tables.iter().map(rows).collect();
    format!(
        "/* rows.text */ select (select count(*) from {} {RANGE}), {}",
        projection.main_table().name,
        texts.join(" || ';' || ")
    )
}

impl ReadModel {
    /// Returns the tables as they are now, read-only, whatever is written meanwhile. The database keeps
    /// old rows for the snapshot until it is dropped, so it is not for hours.
    ///
    /// # Errors
    /// Reads fail with [`StoreError::Database`] or [`StoreError::Timeout`] once the database has lost
    /// the snapshot.
    pub async fn snapshot(&self) -> Result<Arc<Self>> {
        let database = Box::pin(self.database.take_snapshot()).await?;
        Ok(Arc::new(Self { database, ..self.clone() }))
    }

    /// Reads the rows of the next orders, in the order of their ids.
    pub async fn rows_after(&self, after: Option<OrderId>, limit: u32) -> Result<RowsPage> {
        let mut connection = self.database.acquire_reader().await?;
        let mut tables = Vec::new();
        for table in self.projection.tables {
            let name = table.name;
            // All rows of each order: of a part of them, the others would seem to be missing.
            let page = format!(
                "{} where order_id in (select distinct order_id from {name} where order_id >= $1 \
                 order by order_id limit $2) order by {}",
                select(&format!("{name}.page"), table),
                key_list(table)
            );
            let page = query!(page, first_id_after(after), limit);
            tables.push(connection.fetch_records(page, table.columns).await?);
        }
        // Behind the last order of a full page, that table is unknown.
        let last_of_page = |records: &Vec<Record>| {
            let mut ids: Vec<_> = records.iter().filter_map(order_of).collect();
            ids.dedup();
            ids.get(limit.saturating_sub(1) as usize).copied()
        };
        let until = tables.iter().filter_map(last_of_page).min();
        let mut rows = group_by_order(tables);
        if let Some(until) = until {
            rows.retain(|order_id, _| *order_id <= until);
        }
        Ok(RowsPage { rows, until })
    }

    /// Reads the next orders that have a row in any table, in the order of their ids.
    pub async fn ids_after(&self, after: Option<OrderId>, limit: u32) -> Result<Vec<OrderId>> {
        let part = "where order_id >= $1 order by order_id limit $2";
        let ids = select_ids("ids.page", self.projection, part, "order by order_id limit $2");
        let ids = query!(ids, first_id_after(after), limit);
        self.database.acquire_reader().await?.fetch_values(ids).await
    }

    /// Returns where the next page ends: the order up to which no table has rows of more than `limit`
    /// orders; `None` if no table has rows of so many orders.
    pub async fn page_end(&self, after: Option<OrderId>, limit: u32) -> Result<Option<OrderId>> {
        let part = "where order_id >= $1 order by order_id limit 1 offset $2";
        let end = select_ids("ids.page_end", self.projection, part, "order by order_id limit 1");
        self.fetch_value(query!(end, first_id_after(after), limit.saturating_sub(1))).await
    }

    /// Reads the rows of some consecutive orders as a text, to compare them with another database.
    pub async fn rows_text(&self, range: IdRange) -> Result<RowsText> {
        let text = select_rows_text(self.database.dialect(), self.projection);
        let text = query!(text, first_id_after(range.after), range.until);
        self.fetch_row(text).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    /// Returns the last order that has a row in any table, in the order of ids.
    pub async fn last_id(&self) -> Result<Option<OrderId>> {
        let last = "order by order_id desc limit 1";
        let last = select_ids("ids.last", self.projection, last, last);
        self.fetch_value(Query::new(last)).await
    }

    /// Replaces the rows of these orders, as of a checkpoint. Orders without rows lose theirs. The
    /// projector has to begin anew, because the rows that it has read are old.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if the checkpoint is another one, [`StoreError::ProjectionNewer`] if
    /// a newer version of the projection has written the tables: nothing is changed.
    pub async fn mend_rows(
        &self,
        rows: &BTreeMap<OrderId, OrderRecords>,
        at: &Checkpoint,
    ) -> Result<()> {
        // A newer version that takes over after this check moves the checkpoint.
        self.check_projection().await?;
        let mut transaction = self.database.begin().await?;
        // First, so that the projector cannot write rows between these statements.
        interrupt_projector(&mut transaction, &self.set, at).await?;
        delete_rows(&mut transaction, self.projection, rows.keys()).await?;
        let of_table = |index: usize| {
            rows.values().filter_map(|records| records.get(index)).flatten().cloned().collect()
        };
        let written = (0..self.projection.tables.len()).map(of_table).collect();
        let changes = RowChanges { written, ..RowChanges::default() };
        write_rows(&mut transaction, self.projection, &changes).await?;
        transaction.commit().await
    }

    /// Returns the outcome of the last verification of all rows of these tables; `None` before the first.
    pub async fn last_verification(&self) -> Result<Option<LastVerification>> {
        let last = "/* verification.get */ select verified_at, verified_orders, verify_findings \
            from projection_checkpoints where name = $1 and verified_at is not null";
        self.fetch_row(query!(last, self.set.clone())).await
    }

    /// Stores the outcome of a verification.
    pub async fn note_verification(&self, last: &LastVerification) -> Result<()> {
        let note = "/* verification.note */ update projection_checkpoints \
            set verified_at = $2, verified_orders = $3, verify_findings = $4 where name = $1";
        let LastVerification { verified_at, n_orders, n_findings } = *last;
        let note = query!(note, self.set.clone(), verified_at, n_orders, n_findings);
        self.execute_committed(note).await.map(drop)
    }
}
