//! The contract of the store, tested on both databases.

use std::sync::Arc;

use projectors::{ReadModel, migrate, open};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use testkit::postgres;

use crate::contract::*;
use crate::customers::customers_are_summed_up;
use crate::operator_actions::{
    actions_are_listed_by_time_and_filter, actions_of_operators_agree_with_the_events,
};

/// A database of one test. Dropping it removes it.
pub(crate) enum Database {
    Sqlite(TempDir),
    Postgres(postgres::Database),
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(crate) async fn postgres() -> Self {
        Self::Postgres(postgres::create_database().await)
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite://{}", folder.path().join("read.db").display()),
            Self::Postgres(database) => database.url().to_owned(),
        }
    }

    /// Migrates the database and opens the read model in it.
    pub(crate) async fn read_model(&self) -> Arc<ReadModel> {
        migrate(&self.url()).await.unwrap();
        open(&self.url()).unwrap()
    }

    /// Changes the database without the read model.
    pub(crate) async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres(_) => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Returns the columns of a table that are not computed, with their types.
    pub(crate) async fn columns(&self, table: &str) -> Vec<(String, String)> {
        match self {
            Self::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await.unwrap();
                let columns = "select name, lower(type) from pragma_table_info(?1)";
                sqlx::query_as(columns).bind(table).fetch_all(&mut connection).await.unwrap()
            }
            Self::Postgres(_) => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                let columns = "select column_name::text, data_type::text \
                    from information_schema.columns \
                    where table_name = $1 and is_generated = 'NEVER'";
                sqlx::query_as(columns).bind(table).fetch_all(&mut connection).await.unwrap()
            }
        }
    }
}

macro_rules! on_both_stores {
    ($($contract:ident,)+) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $contract() {
                super::$contract(&super::Database::sqlite()).await;
            })+
        }

        mod postgres_server {
            $(#[tokio::test]
            async fn $contract() {
                super::$contract(&super::Database::postgres().await).await;
            })+
        }
    };
}

on_both_stores! {
    rows_read_back_as_they_were_written,
    every_column_is_in_the_text_of_the_rows,
    batch_applied_again_changes_nothing,
    any_number_of_orders_is_read_at_once,
    concurrent_lookups_find_each_order,
    older_revision_never_overwrites_a_newer_one,
    rows_and_checkpoint_move_together_or_not_at_all,
    checkpoint_that_moved_stops_the_writer,
    checkpoint_moves_without_events,
    pages_show_every_order_exactly_once,
    pages_show_every_failure_exactly_once,
    orders_are_filtered,
    failures_are_filtered_and_resolved_ones_shown_on_request,
    unresolved_failures_are_listed_oldest_first,
    unresolved_failures_are_walked_through_exactly_once,
    unresolved_failures_are_counted_by_their_cause,
    lists_of_a_tenant_contain_its_orders_only,
    orders_are_counted_by_state,
    statistics_count_every_event_once,
    lease_counts_as_held_only_after_its_commit,
    challenged_lease_is_answered_by_its_holder_only,
    former_holder_of_the_lease_cannot_write,
    migrating_again_does_nothing,
    schema_that_is_missing_or_newer_is_refused,
    customers_are_summed_up,
    actions_of_operators_agree_with_the_events,
    actions_are_listed_by_time_and_filter,
}

#[tokio::test]
async fn same_rows_have_the_same_text_in_both_databases() {
    let databases = [Database::sqlite(), Database::postgres().await];
    let mut texts = Vec::new();
    for database in &databases {
        texts.push(text_of_some_rows(database).await);
    }
    assert_eq!(texts[0], texts[1]);
}
