//! The read model in PostgreSQL.

mod failures;
mod read;
mod value;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::order::Order;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};
use tokio::time::timeout;

use super::migrations::{self, Migrated};
use super::{
    ACQUIRE_TIMEOUT, Checkpoint, FailedOrderFilter, FailureFilter, FailureGroup, OrderCounts,
    OrderFilter, Page, Place, ReadModel, StoreError,
};
use crate::orders::row::{Changes, FailedOrder, Rows};

/// Connections of one process.
const MAX_CONNECTIONS: u32 = 10;

pub(super) struct Postgres {
    pool: PgPool,
    /// For messages.
    url: String,
}

impl Postgres {
    pub(super) fn open(options: PgConnectOptions, url: String) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        Self { pool, url }
    }
}

pub(super) async fn migrate(
    options: PgConnectOptions,
    url: &str,
) -> Result<Vec<Migrated>, StoreError> {
    let connecting = timeout(ACQUIRE_TIMEOUT, options.connect());
    let mut connection = connecting.await.map_err(|_| StoreError::Timeout)??;
    let migrated = migrations::run(migrations::POSTGRES, &mut connection, url).await?;
    connection.close().await?;
    Ok(migrated)
}

#[async_trait]
impl ReadModel for Postgres {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("/* ping */ select 1 from orders limit 1").execute(&self.pool).await?;
        Ok(())
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let migrated: bool = sqlx::query_scalar(
            "/* schema.exists */ select to_regclass('_sqlx_migrations') is not null",
        )
        .fetch_one(&self.pool)
        .await?;
        let mut had = BTreeSet::new();
        if migrated {
            let versions = "/* schema.versions */ select version from _sqlx_migrations";
            had.extend(sqlx::query_scalar::<_, i64>(versions).fetch_all(&self.pool).await?);
        }
        migrations::check(migrations::POSTGRES, &had, &self.url)
    }

    async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        read::checkpoint(&self.pool).await
    }

    async fn rows(&self, orders: &[OrderId]) -> Result<BTreeMap<OrderId, Rows>, StoreError> {
        read::rows(&self.pool, orders).await
    }

    async fn write(
        &self,
        changes: &Changes,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        // First, so that a second projector is stopped before it has written a row.
        write::move_checkpoint(&mut transaction, from, to).await?;
        write::upsert_orders(&mut transaction, &changes.orders).await?;
        write::upsert_failed_orders(&mut transaction, &changes.failed_orders).await?;
        write::insert_tenants(&mut transaction, &changes.tenants).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn order(&self, order_id: OrderId) -> Result<Option<Order>, StoreError> {
        read::order(&self.pool, order_id).await
    }

    async fn orders(&self, filter: &OrderFilter, page: &Page) -> Result<Vec<Order>, StoreError> {
        read::orders(&self.pool, filter, page).await
    }

    async fn failed_orders(
        &self,
        filter: &FailedOrderFilter,
        page: &Page,
    ) -> Result<Vec<FailedOrder>, StoreError> {
        read::failed_orders(&self.pool, filter, page).await
    }

    async fn failures_now(
        &self,
        filter: &FailureFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<FailedOrder>, StoreError> {
        failures::now(&self.pool, filter, after, limit).await
    }

    async fn failure_groups(
        &self,
        filter: &FailureFilter,
    ) -> Result<Vec<FailureGroup>, StoreError> {
        failures::groups(&self.pool, filter).await
    }

    async fn count_orders(&self) -> Result<OrderCounts, StoreError> {
        read::count_orders(&self.pool).await
    }
}
