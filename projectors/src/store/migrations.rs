//! The embedded migrations of the schema, and the check that a database has had them.

use std::collections::BTreeSet;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};

use super::{Result, StoreError};

/// An embedded migration.
pub(super) struct Embedded {
    version: i64,
    name: &'static str,
    pub(super) postgres: &'static str,
    pub(super) sqlite: &'static str,
}

/// Embeds the migrations of both databases.
macro_rules! embed_migrations {
    ($($version:literal $file:literal,)+) => {
        &[$(Embedded {
            version: $version,
            // Without the four digits of the version and the underscore.
            name: $file.split_at(5).1,
            postgres: include_str!(concat!("../../../migrations/postgres/", $file, ".sql")),
            sqlite: include_str!(concat!("../../../migrations/sqlite/", $file, ".sql")),
        },)+]
    };
}

/// All migrations, oldest first.
const MIGRATIONS: &[Embedded] = embed_migrations! {
    1 "0001_read_model",
    2 "0002_writer_and_statistics",
    3 "0003_failures_now",
    4 "0004_order_tenants",
    5 "0005_verifications",
    6 "0006_customer_orders",
    7 "0007_operator_actions",
    8 "0008_completion_times",
};

/// Version of the schema that this release needs: the newest migration.
pub const SCHEMA_VERSION: i64 = match MIGRATIONS.last() {
    Some(newest) => newest.version,
    None => 0,
};

/// A migration that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub version: i64,
    pub name: String,
}

/// Runs the migrations that the database has not had, and returns them. `sql` selects the database.
pub(super) async fn run<C>(
    connection: &mut C,
    sql: fn(&Embedded) -> &'static str,
    url: &str,
) -> Result<Vec<Migrated>>
where
    C: Migrate,
{
    let failed = |source| StoreError::Migration { url: url.to_owned(), source };
    let migration = |embedded: &Embedded| {
        let (name, sql) = (embedded.name.into(), sql(embedded).into_sql_str());
        Migration::new(embedded.version, name, MigrationType::Simple, sql, false)
    };
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect());
    // The caller keeps other processes out: the migrator's own lock would stay in a pooler's session.
    migrator.set_locking(false);
    connection.ensure_migrations_table(&migrator.table_name).await.map_err(failed)?;
    let had = connection.list_applied_migrations(&migrator.table_name).await.map_err(failed)?;
    let had: BTreeSet<_> = had.into_iter().map(|migration| migration.version).collect();
    if let Err(newer @ StoreError::SchemaNewer { .. }) = check_versions(&had, url) {
        return Err(newer);
    }
    migrator.run_direct(None, connection, false).await.map_err(failed)?;
    let ran = MIGRATIONS.iter().filter(|migration| !had.contains(&migration.version));
    Ok(ran.map(|ran| Migrated { version: ran.version, name: ran.name.to_owned() }).collect())
}

/// Checks that a database that had the migrations `had` has the schema that this release knows.
pub(super) fn check_versions(had: &BTreeSet<i64>, url: &str) -> Result<()> {
    let known: BTreeSet<_> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    let url = url.to_owned();
    let found = had.last().copied().unwrap_or_default();
    let needed = known.last().copied().unwrap_or_default();
    if !had.is_subset(&known) {
        return Err(StoreError::SchemaNewer { url, found, needed });
    }
    if !known.is_subset(had) {
        return Err(StoreError::SchemaOlder { url, found, needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_file_is_embedded_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let name =
            |migration: &Embedded| format!("{:04}_{}.sql", migration.version, migration.name);
        let embedded: BTreeSet<_> = MIGRATIONS.iter().map(name).collect();
        for dialect in ["postgres", "sqlite"] {
            let files: BTreeSet<_> = std::fs::read_dir(format!("{folder}/{dialect}"))
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(files, embedded, "{dialect}");
        }
    }

    #[test]
    fn older_and_newer_schemas_are_refused_with_advice() {
        let newest = SCHEMA_VERSION;
        let refusal = |had: Vec<i64>| {
            let refused = check_versions(&had.into_iter().collect(), "sqlite://x");
            refused.err().map(|error| error.to_string())
        };
        assert_eq!(refusal((1..=newest).collect()), None);
        assert!(refusal(vec![]).unwrap().contains("run `dofs migrate`"));
        let older = format!("at version 1, older than the {newest}");
        assert!(refusal(vec![1]).unwrap().contains(&older));
        let newer = format!("at version {}, newer than the {newest}", newest + 1);
        assert!(refusal((1..=newest + 1).collect()).unwrap().contains(&newer));
    }
}
