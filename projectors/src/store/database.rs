//! A database that holds projections: what is the same in PostgreSQL and SQLite.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use domain::ids::OrderId;
use jiff::Timestamp;
use sqlx::Pool;
use sqlx::pool::PoolConnection;

use super::checkpoint::{find_checkpoint, move_checkpoint};
use super::migrations::{self, Embedded};
use super::query::{Dialect, Query};
use super::sets::{SetName, Sets};
use super::statistics;
use super::transaction::WriteTransaction;
use super::{
    Checkpoint, FailedOrderFilter, FailureFilter, FailureGroup, OrderCounts, OrderFilter, Page,
    Place, ReadModel, StoreError,
};
use crate::orders::{FailedOrder, OrderRow};
use crate::projection::{
    ColumnType, CountChange, Minute, OrderRecords, Projection, Record, Row, RowChanges, TableRow,
    order_of, read_row,
};

/// What a database does in its own way.
#[async_trait]
pub(super) trait Backend: Dialect + Sized {
    /// What a database keeps beside its connections.
    type Handle: Clone + Send + Sync + 'static;

    const MIGRATIONS: &'static [Embedded];
    /// Returns one row with the number of tables called `_sqlx_migrations`.
    const FIND_MIGRATIONS: &'static str;

    /// Returns whether the database is there; one that is not has no schema yet.
    fn exists(handle: &Self::Handle) -> bool;

    /// The statements that begin and commit a transaction that writes.
    fn transaction(handle: &Self::Handle) -> (&'static str, &'static str);

    /// Notes that a write has failed.
    fn note_failure(handle: &Self::Handle, error: &StoreError);

    /// Returns the same tables as they are now.
    async fn snapshot(store: &Store<Self>) -> Result<Store<Self>, StoreError>;

    /// Writes the rows of a batch, in a transaction.
    async fn write_rows(
        connection: &mut Self::Connection,
        projection: &'static Projection,
        changes: &RowChanges,
    ) -> Result<(), StoreError>;
}

/// The tables of one set of one projection.
pub(super) struct Store<D: Backend> {
    pub(super) readers: Pool<D>,
    pub(super) writer: Pool<D>,
    /// For messages, without secrets.
    pub(super) url: Arc<str>,
    pub(super) projection: &'static Projection,
    /// The key of the set in `projection_checkpoints`.
    pub(super) set: String,
    pub(super) handle: D::Handle,
}

/// Deletes all rows of some orders.
pub(super) async fn delete_rows<D: Dialect>(
    connection: &mut D::Connection,
    projection: &Projection,
    order_ids: impl IntoIterator<Item = &OrderId> + Send,
) -> Result<(), StoreError> {
    let order_ids: Vec<_> = order_ids.into_iter().copied().collect();
    for order_id in order_ids {
        for table in projection.tables {
            let name = table.name;
            let delete = format!("/* {name}.delete */ delete from {name} where order_id = $1");
            Query::new(delete).bind(order_id).execute::<D>(connection).await?;
        }
    }
    Ok(())
}

impl<D: Backend> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self {
            readers: self.readers.clone(),
            writer: self.writer.clone(),
            url: Arc::clone(&self.url),
            projection: self.projection,
            set: self.set.clone(),
            handle: self.handle.clone(),
        }
    }
}

impl<D: Backend> Store<D> {
    /// Returns a connection to read with.
    pub(super) async fn acquire_reader(&self) -> sqlx::Result<PoolConnection<D>> {
        self.readers.acquire().await
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<WriteTransaction<D>, StoreError> {
        let (begin, commit) = D::transaction(&self.handle);
        Ok(WriteTransaction::begin(&self.writer, begin, commit).await?)
    }

    /// Runs a call that writes, and notes its failure.
    pub(super) async fn watch<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        call.await.inspect_err(|error| D::note_failure(&self.handle, error))
    }

    /// Returns the versions of the migrations that the database has had.
    async fn applied_migrations(&self) -> Result<BTreeSet<i64>, StoreError> {
        if !D::exists(&self.handle) {
            return Ok(BTreeSet::new());
        }
        let mut connection = self.acquire_reader().await?;
        let n_tables =
            Query::new(D::FIND_MIGRATIONS).fetch_value::<D, i64>(&mut connection).await?;
        if n_tables.unwrap_or_default() == 0 {
            return Ok(BTreeSet::new());
        }
        let versions = Query::new("/* schema.versions */ select version from _sqlx_migrations");
        Ok(versions.fetch_values::<D, i64>(&mut connection).await?.into_iter().collect())
    }

    async fn write_batch(
        &self,
        changes: &RowChanges,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // First, so that a second projector is stopped before it has written a row.
        move_checkpoint::<D>(&mut transaction, &self.set, from, to).await?;
        delete_rows::<D>(&mut transaction, self.projection, &changes.deleted).await?;
        D::write_rows(&mut transaction, self.projection, changes).await?;
        statistics::add_statistics::<D>(&mut transaction, &self.set, &changes.statistics).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Brings the rows of the tables together, order by order.
    pub(super) fn group_by_order(
        &self,
        tables: Vec<Vec<Record>>,
    ) -> BTreeMap<OrderId, OrderRecords> {
        let mut rows = BTreeMap::<_, OrderRecords>::new();
        for (index, records) in tables.into_iter().enumerate() {
            for record in records {
                let Some(order_id) = order_of(&record) else { continue };
                let of_order = rows
                    .entry(order_id)
                    .or_insert_with(|| vec![None; self.projection.tables.len()]);
                of_order[index] = Some(record);
            }
        }
        rows
    }

    /// Runs one statement in a transaction and returns the number of rows that it changed.
    pub(super) async fn execute_committed(&self, query: Query) -> Result<u64, StoreError> {
        self.watch(async {
            let mut transaction = self.begin().await?;
            let n_changed = query.execute::<D>(&mut transaction).await?;
            transaction.commit().await?;
            Ok(n_changed)
        })
        .await
    }

    pub(super) async fn fetch_rows<R: Row>(&self, query: Query) -> Result<Vec<R>, StoreError> {
        query.fetch::<D, R>(&mut *self.acquire_reader().await?).await
    }

    /// Returns the first row, if there is any.
    pub(super) async fn fetch_row<R: Row>(&self, query: Query) -> Result<Option<R>, StoreError> {
        query.fetch_first::<D, R>(&mut *self.acquire_reader().await?).await
    }

    /// Returns the only column of the first row, if there is any.
    pub(super) async fn fetch_value<C: ColumnType>(
        &self,
        query: Query,
    ) -> Result<Option<C>, StoreError> {
        query.fetch_value::<D, C>(&mut *self.acquire_reader().await?).await
    }
}

/// A condition on the tenant of the order; the tenant and a bracket follow.
const OF_TENANT: &str = " and order_id in (select order_id from order_tenants where tenant = ";
/// A condition on the customer of the failure's order; the customer and a bracket follow.
const OF_CUSTOMER: &str = " and exists (select 1 from orders \
    where orders.order_id = failed_orders.order_id and orders.customer_id = ";

/// Restricts failures.
fn restrict_failures<D: Dialect>(query: &mut Query, filter: &FailureFilter) {
    query.restrict(" and stage = ", filter.stage, "");
    query.restrict(" and code = ", filter.code.clone(), "");
    query.restrict(" and failed_at < ", filter.failed_before, "");
    query.restrict(OF_CUSTOMER, filter.customer_id.clone(), ")");
    if let Some(order_ids) = &filter.order_ids {
        query.restrict_ids::<D>(order_ids);
    }
}

/// Counts the failures that are not resolved by stage and code.
pub(super) fn count_failures<D: Dialect>(filter: &FailureFilter) -> Query {
    let mut query = Query::new(
        "/* failed_orders.groups */ select stage, code, count(*) as n_orders, \
         min(failed_at) as oldest_failed_at, max(failed_at) as newest_failed_at \
         from failed_orders where resolved_at is null",
    );
    restrict_failures::<D>(&mut query, filter);
    query.push(" group by stage, code order by n_orders desc, oldest_failed_at, stage, code");
    query
}

#[async_trait]
impl<D: Backend> ReadModel for Store<D>
where
    Self: Sets,
{
    fn projection(&self) -> &'static Projection {
        self.projection
    }

    fn for_projection(&self, projection: &'static Projection) -> Arc<dyn ReadModel> {
        Arc::new(Self { projection, set: SetName::Live.key(projection), ..self.clone() })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let table = self.projection.main_table().name;
        let ping =
            format!("/* ping */ select count(*) from (select 1 from {table} limit 1) as found");
        self.fetch_value::<i64>(Query::new(ping)).await.map(drop)
    }

    fn address(&self) -> &str {
        &self.url
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        migrations::check_versions(D::MIGRATIONS, &self.applied_migrations().await?, &self.url)
    }

    async fn schema_version(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.applied_migrations().await?.last().copied())
    }

    async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let found = find_checkpoint::<D>(&mut *self.acquire_reader().await?, &self.set).await?;
        // Only a set beside the live one can be dropped by another process.
        let is_live = self.set == SetName::Live.key(self.projection);
        found.ok_or(if is_live {
            StoreError::Database(sqlx::Error::RowNotFound)
        } else {
            StoreError::CheckpointMoved
        })
    }

    async fn rows(
        &self,
        order_ids: &[OrderId],
    ) -> Result<BTreeMap<OrderId, OrderRecords>, StoreError> {
        let mut connection = self.acquire_reader().await?;
        let mut tables = Vec::new();
        for table in self.projection.tables {
            tables.push(D::fetch_by_ids(&mut connection, table, order_ids).await?);
        }
        Ok(self.group_by_order(tables))
    }

    async fn write(
        &self,
        changes: &RowChanges,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), StoreError> {
        self.watch(self.write_batch(changes, from, to)).await
    }

    async fn newest(
        &self,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<super::Newest>, StoreError> {
        let table = self.projection.main_table().name;
        let mut query = Query::new(format!(
            "/* {table}.newest */ select order_id, revision, listed_at from {table} where true"
        ));
        query.push_page("listed_at", &Page { after, limit });
        self.fetch_rows(query).await
    }

    async fn count_rows(&self) -> Result<u64, StoreError> {
        if self.projection.has_statistics {
            return Ok(self.count_orders().await?.total());
        }
        let count = format!("select count(*) from {}", self.projection.main_table().name);
        Ok(self.fetch_value(Query::new(count)).await?.unwrap_or_default())
    }

    async fn orders_by_id(&self, order_ids: &[OrderId]) -> Result<Vec<OrderRow>, StoreError> {
        let mut connection = self.acquire_reader().await?;
        let records = D::fetch_by_ids(&mut connection, &OrderRow::TABLE, order_ids).await?;
        Ok(records.into_iter().map(read_row).collect::<Result<_, _>>()?)
    }

    /// The statement has the conditions of the filter and no others, so that each kind of filter gets
    /// a plan of its own.
    async fn orders(&self, filter: &OrderFilter, page: &Page) -> Result<Vec<OrderRow>, StoreError> {
        let mut query = Query::select::<OrderRow>("orders.list");
        query.push(" where true");
        query.restrict(OF_TENANT, filter.tenant.clone(), ")");
        query.restrict(" and status = ", filter.status, "");
        query.restrict(" and customer_id = ", filter.customer_id.clone(), "");
        query.restrict(" and listed_at >= ", filter.from, "");
        query.restrict(" and listed_at < ", filter.to, "");
        query.push_page("listed_at", page);
        self.fetch_rows(query).await
    }

    async fn failed_orders(
        &self,
        filter: &FailedOrderFilter,
        page: &Page,
    ) -> Result<Vec<FailedOrder>, StoreError> {
        let mut query = Query::select::<FailedOrder>("failed_orders.list");
        query.push(if filter.include_resolved {
            " where true"
        } else {
            " where resolved_at is null"
        });
        query.restrict(OF_TENANT, filter.tenant.clone(), ")");
        query.restrict(" and stage = ", filter.stage, "");
        query.restrict(" and code = ", filter.code.clone(), "");
        query.restrict(OF_CUSTOMER, filter.customer_id.clone(), ")");
        query.restrict(" and failed_at >= ", filter.from, "");
        query.restrict(" and failed_at < ", filter.to, "");
        query.push_page("failed_at", page);
        self.fetch_rows(query).await
    }

    async fn failures_now(
        &self,
        filter: &FailureFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<FailedOrder>, StoreError> {
        let mut query = Query::select::<FailedOrder>("failed_orders.now");
        query.push(" where resolved_at is null");
        restrict_failures::<D>(&mut query, filter);
        query.restrict_place(" and (failed_at, order_id) > ", after);
        query.push(" order by failed_at, order_id limit ");
        query.push_bind(limit);
        self.fetch_rows(query).await
    }

    async fn failure_groups(
        &self,
        filter: &FailureFilter,
    ) -> Result<Vec<FailureGroup>, StoreError> {
        self.fetch_rows(count_failures::<D>(filter)).await
    }

    async fn count_orders(&self) -> Result<OrderCounts, StoreError> {
        let counts = Query::new(
            "/* projection_counts.get */ select status, nullif(stage, '') as stage, n_orders \
             from projection_counts where name = $1",
        )
        .bind(self.set.clone());
        let mut total = OrderCounts::default();
        for CountChange { status, stage, n_orders } in self.fetch_rows(counts).await? {
            total.add(status, stage, u64::try_from(n_orders).unwrap_or_default());
        }
        Ok(total)
    }

    async fn oldest_processing(&self) -> Result<Option<Timestamp>, StoreError> {
        let oldest = Query::new(
            "/* orders.oldest_processing */ select updated_at from orders \
             where status = 'PROCESSING' order by updated_at limit 1",
        );
        self.fetch_value(oldest).await
    }

    async fn minutes(&self, from: i64) -> Result<BTreeMap<i64, Minute>, StoreError> {
        statistics::read_minutes::<D>(&mut *self.acquire_reader().await?, &self.set, from).await
    }
}
