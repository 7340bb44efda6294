//! The embedded migrations of the schema, and the check that a database has had them.

use std::collections::BTreeSet;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};

use super::StoreError;

/// One migration: its version, its name and its SQL.
pub(super) type Embedded = (i64, &'static str, &'static str);

/// Embeds the migrations of a dialect, oldest first.
macro_rules! embed_migrations {
    ($dialect:literal) => {
        &[
            embed_migrations!($dialect, 1, "0001_read_model"),
            embed_migrations!($dialect, 2, "0002_writer_and_statistics"),
            embed_migrations!($dialect, 3, "0003_failures_now"),
            embed_migrations!($dialect, 4, "0004_order_tenants"),
            embed_migrations!($dialect, 5, "0005_verifications"),
            embed_migrations!($dialect, 6, "0006_customer_orders"),
        ]
    };
    ($dialect:literal, $version:literal, $file:literal) => {
        (
            $version,
            // Without the four digits of the version and the underscore.
            $file.split_at(5).1,
            include_str!(concat!("../../../migrations/", $dialect, "/", $file, ".sql")),
        )
    };
}

pub(super) const POSTGRES: &[Embedded] = embed_migrations!("postgres");
pub(super) const SQLITE: &[Embedded] = embed_migrations!("sqlite");

/// Version of the schema that this release needs: the newest migration of either dialect.
pub const SCHEMA_VERSION: i64 = match SQLITE.last() {
    Some((version, _, _)) => *version,
    None => 0,
};

/// A migration that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub version: i64,
    pub name: String,
}

/// Runs the migrations that the database has not had, and returns them.
pub(super) async fn run<C>(
    embedded: &[Embedded],
    connection: &mut C,
    url: &str,
) -> Result<Vec<Migrated>, StoreError>
where
    C: Migrate,
{
    let failed = |source| StoreError::Migration { url: url.to_owned(), source };
    let migrator = build_migrator(embedded);
    connection.ensure_migrations_table(&migrator.table_name).await.map_err(failed)?;
    let had = connection.list_applied_migrations(&migrator.table_name).await.map_err(failed)?;
    let had: BTreeSet<_> = had.into_iter().map(|migration| migration.version).collect();
    if let Err(newer @ StoreError::SchemaNewer { .. }) = check_versions(embedded, &had, url) {
        return Err(newer);
    }
    migrator.run_direct(None, connection, false).await.map_err(failed)?;
    let ran = embedded.iter().filter(|(version, _, _)| !had.contains(version));
    Ok(ran.map(|&(version, name, _)| Migrated { version, name: name.to_owned() }).collect())
}

/// Checks that a database that had the migrations `had` has the schema that this release knows.
pub(super) fn check_versions(
    embedded: &[Embedded],
    had: &BTreeSet<i64>,
    url: &str,
) -> Result<(), StoreError> {
    let known: BTreeSet<_> = embedded.iter().map(|&(version, _, _)| version).collect();
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

fn build_migrator(embedded: &[Embedded]) -> Migrator {
    let migration = |&(version, name, sql): &Embedded| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(embedded.iter().map(migration).collect());
    // The caller keeps other processes out: the migrator's own lock would stay in a pooler's session.
    migrator.set_locking(false);
    migrator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_file_is_embedded_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        for (dialect, embedded) in [("postgres", POSTGRES), ("sqlite", SQLITE)] {
            let files: BTreeSet<_> = std::fs::read_dir(format!("{folder}/{dialect}"))
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            let named: BTreeSet<_> = embedded
                .iter()
                .map(|(version, name, _)| format!("{version:04}_{name}.sql"))
                .collect();
            assert_eq!(files, named, "{dialect}");
        }
    }

    #[test]
    fn older_and_newer_schemas_are_refused_with_advice() {
        let known = &[(1, "a", ""), (2, "b", "")];
        let refusal = |had: &[i64]| {
            check_versions(known, &had.iter().copied().collect(), "sqlite://x")
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(refusal(&[1, 2]), None);
        assert!(refusal(&[]).unwrap().contains("run `dofs migrate`"));
        assert!(refusal(&[1]).unwrap().contains("at version 1, older than the 2"));
        assert!(refusal(&[1, 2, 3]).unwrap().contains("at version 3, newer than the 2"));
    }
}
