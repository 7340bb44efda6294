//! The rows of orders: read and written together with the checkpoint that they reflect.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use jiff::Timestamp;

use super::checkpoint::{find_checkpoint, move_checkpoint};
use super::database::Connection;
use super::postgres::bulk;
use super::query::{Query, select};
use super::statistics::add_statistics;
use super::{Checkpoint, Page, Place, ReadModel, Result, StoreError, sqlite};
use crate::projection::{OrderRecords, Projection, Record, RowChanges, Table, order_of, row};

row! {
    /// How far the row of an order is, and its place among the newest.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Newest {
        pub order_id: OrderId,
        pub revision: u64,
        pub listed_at: Timestamp,
    }
}

impl Newest {
    /// Returns the order's place among the orders.
    pub fn place(&self) -> Place {
        Place { at: self.listed_at, order_id: self.order_id }
    }
}

impl ReadModel {
    /// Returns how far the projection has come.
    pub async fn checkpoint(&self) -> Result<Checkpoint> {
        let found = find_checkpoint(&mut self.database.acquire_reader().await?, &self.set).await?;
        // Only a set beside the live one can be dropped by another process.
        let is_live = self.set == self.projection.name;
        found.ok_or(if is_live {
            StoreError::Database(sqlx::Error::RowNotFound)
        } else {
            StoreError::CheckpointMoved
        })
    }

    /// Reads the rows of these orders. Orders without rows are left out.
    pub async fn rows(&self, order_ids: &[OrderId]) -> Result<BTreeMap<OrderId, OrderRecords>> {
        self.rows_of_tables(order_ids, |_table| true).await
    }

    /// Reads the rows of these orders that the fold needs. Rows that the fold only adds are left out.
    pub(crate) async fn rows_to_fold(
        &self,
        order_ids: &[OrderId],
    ) -> Result<BTreeMap<OrderId, OrderRecords>> {
        self.rows_of_tables(order_ids, |table| !table.is_only_added_to()).await
    }

    async fn rows_of_tables(
        &self,
        order_ids: &[OrderId],
        is_read: fn(&Table) -> bool,
    ) -> Result<BTreeMap<OrderId, OrderRecords>> {
        let mut connection = self.database.acquire_reader().await?;
        let mut tables = Vec::new();
        for table in self.projection.tables {
            tables.push(if is_read(table) {
                fetch_by_ids(&mut connection, table, order_ids).await?
            } else {
                Vec::new()
            });
        }
        Ok(group_by_order(tables))
    }

    /// Writes rows and statistics and moves the checkpoint, in one transaction. A row that reflects a
    /// newer revision already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if the checkpoint is not at `from`: then nothing is written.
    pub async fn write(
        &self,
        changes: &RowChanges,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<()> {
        self.watch(async {
            let mut transaction = self.database.begin().await?;
            // First, so that a second projector is stopped before it has written a row.
            move_checkpoint(&mut transaction, &self.set, from, to).await?;
            delete_rows(&mut transaction, self.projection, &changes.deleted).await?;
            write_rows(&mut transaction, self.projection, changes).await?;
            add_statistics(&mut transaction, &self.set, &changes.statistics).await?;
            transaction.commit().await
        })
        .await
    }

    /// Reads the revisions of the newest orders behind `after`, newest first.
    pub async fn newest(&self, after: Option<Place>, limit: u32) -> Result<Vec<Newest>> {
        let table = self.projection.main_table().name;
        let mut query = Query::new(format!(
            "/* {table}.newest */ select order_id, revision, listed_at from {table} where true"
        ));
        query.push_page("listed_at", &Page { after, limit });
        self.fetch_rows(query).await
    }

    /// Returns the number of orders that have rows. It may be wrong where statistics are.
    pub async fn count_rows(&self) -> Result<u64> {
        if self.projection.has_statistics {
            return Ok(self.count_orders().await?.total());
        }
        let count = format!("select count(*) from {}", self.projection.main_table().name);
        Ok(self.fetch_value(Query::new(count)).await?.unwrap_or_default())
    }
}

/// Brings the rows of the tables together, order by order.
pub(super) fn group_by_order(tables: Vec<Vec<Record>>) -> BTreeMap<OrderId, OrderRecords> {
    let n_tables = tables.len();
    let mut rows = BTreeMap::<_, OrderRecords>::new();
    for (index, records) in tables.into_iter().enumerate() {
        for record in records {
            let Some(order_id) = order_of(&record) else { continue };
            rows.entry(order_id).or_insert_with(|| vec![Vec::new(); n_tables])[index].push(record);
        }
    }
    // The database returns the rows in any order.
    rows.values_mut().flatten().for_each(|records| records.sort());
    rows
}

/// Reads the rows of some orders from a table.
pub(super) async fn fetch_by_ids(
    connection: &mut Connection,
    table: &'static Table,
    order_ids: &[OrderId],
) -> Result<Vec<Record>> {
    if let Connection::Sqlite(_) = connection {
        return sqlite::rows::fetch_by_ids(connection, table, order_ids).await;
    }
    let mut query = Query::new(select(&format!("{}.get_many", table.name), table));
    query.push(" where true");
    query.restrict_ids(connection.dialect(), order_ids);
    connection.fetch_records(query, table.columns).await
}

/// Deletes all rows of some orders.
pub(super) async fn delete_rows(
    connection: &mut Connection,
    projection: &Projection,
    order_ids: impl IntoIterator<Item = &OrderId>,
) -> Result<()> {
    let order_ids: Vec<_> = order_ids.into_iter().copied().collect();
    if order_ids.is_empty() {
        return Ok(());
    }
    for Table { name, .. } in projection.tables {
        let mut delete = Query::new(format!("/* {name}.delete */ delete from {name} where true"));
        delete.restrict_ids(connection.dialect(), &order_ids);
        connection.execute(delete).await?;
    }
    Ok(())
}

/// Writes the rows of a batch.
pub(super) async fn write_rows(
    connection: &mut Connection,
    projection: &Projection,
    changes: &RowChanges,
) -> Result<()> {
    for (table, records) in projection.tables.iter().zip(&changes.written) {
        match connection {
            Connection::Postgres(postgres) => {
                let begun = &changes.begun;
                Box::pin(bulk::write_table(postgres, table, records, begun)).await?;
            }
            Connection::Sqlite(_) => sqlite::rows::write_table(connection, table, records).await?,
        }
    }
    Ok(())
}
