//! The embedded migrations of the schema, and the check that this release works with the schema of a
//! database.
//!
//! Each migration declares the oldest schema whose release works with a database that has had the
//! migration. The database records the declarations, so that a release accepts a newer schema that does
//! not break it: processes of two releases run side by side during an upgrade, and the older release can
//! be started again after it.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};

use super::{Result, StoreError};

/// An embedded migration.
pub(super) struct Embedded {
    version: i64,
    works_with: i64,
    name: &'static str,
    pub(super) postgres: &'static str,
    pub(super) sqlite: &'static str,
}

/// Embeds the migrations of both databases.
macro_rules! embed_migrations {
    ($($version:literal $file:literal works with $works_with:literal,)+) => {
        &[$(Embedded {
            version: $version,
            works_with: $works_with,
            // Without the four digits of the version and the underscore.
            name: $file.split_at(5).1,
            postgres: include_str!(concat!("../../../migrations/postgres/", $file, ".sql")),
            sqlite: include_str!(concat!("../../../migrations/sqlite/", $file, ".sql")),
        },)+]
    };
}

/// All migrations, oldest first, and the oldest schema whose release works with a database that has had
/// them: the schema before it for a migration that only adds (a table, an index, a column that is
/// nullable or has a default), its own version for any other. A declaration never sinks below that of an
/// earlier migration. Up to 9, each declares itself, because earlier releases accept no other
/// schema than their own.
const MIGRATIONS: &[Embedded] = embed_migrations! {
    1 "0001_read_model" works with 1,
    2 "0002_writer_and_statistics" works with 2,
    3 "0003_failures_now" works with 3,
    4 "0004_order_tenants" works with 4,
    5 "0005_verifications" works with 5,
    6 "0006_customer_orders" works with 6,
    7 "0007_operator_actions" works with 7,
    8 "0008_completion_times" works with 8,
    9 "0009_compatibility" works with 9,
    10 "0010_failures_by_stage" works with 9,
};

/// Version of the schema that this release needs: the newest migration.
pub const SCHEMA_VERSION: i64 = match MIGRATIONS.last() {
    Some(newest) => newest.version,
    None => 0,
};

/// A migration of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaMigration {
    pub version: i64,
    pub name: String,
    /// The oldest schema whose release works with a database that has had this migration.
    pub works_with: i64,
}

impl From<&Embedded> for SchemaMigration {
    fn from(embedded: &Embedded) -> Self {
        let Embedded { version, works_with, name, .. } = *embedded;
        Self { version, works_with, name: name.to_owned() }
    }
}

/// The migrations that a database has had.
#[derive(Debug, Default)]
pub(super) struct AppliedMigrations {
    pub(super) versions: BTreeSet<i64>,
    /// By the version of a migration, the oldest schema whose release works with it.
    pub(super) works_with: BTreeMap<i64, i64>,
}

impl AppliedMigrations {
    /// Returns whether a newer release has migrated the database.
    pub(super) fn has_unknown(&self) -> bool {
        self.unknown().next().is_some()
    }

    /// Returns the migrations that this release does not know.
    fn unknown(&self) -> impl Iterator<Item = i64> {
        let is_known =
            |version: &i64| MIGRATIONS.iter().any(|migration| migration.version == *version);
        self.versions.iter().copied().filter(move |version| !is_known(version))
    }

    /// Returns the migrations that the database has not had, oldest first.
    fn pending(&self) -> impl Iterator<Item = &'static Embedded> {
        MIGRATIONS.iter().filter(|migration| !self.versions.contains(&migration.version))
    }

    /// Checks that this release works with the schema.
    pub(super) fn check(&self, url: &str) -> Result<()> {
        self.check_unknown(url)?;
        if self.pending().next().is_some() {
            let (found, needed) = (self.newest(), SCHEMA_VERSION);
            return Err(StoreError::SchemaOlder { url: url.to_owned(), found, needed });
        }
        Ok(())
    }

    /// Returns whether a newer release has migrated the database and this release works with it.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`] if this release does not work with it.
    pub(super) fn is_newer_and_works(&self, url: &str) -> Result<bool> {
        self.check_unknown(url)?;
        Ok(self.has_unknown())
    }

    /// Returns the migrations to apply; none if a newer release has migrated the database and this
    /// release works with it.
    pub(super) fn plan(&self, url: &str) -> Result<Vec<SchemaMigration>> {
        self.check_unknown(url)?;
        Ok(self.pending().map(SchemaMigration::from).collect())
    }

    /// Checks that this release works with the migrations that it does not know. A migration without a
    /// declaration counts as one that breaks it.
    fn check_unknown(&self, url: &str) -> Result<()> {
        let works = |version: i64| {
            self.works_with.get(&version).is_some_and(|oldest| *oldest <= SCHEMA_VERSION)
        };
        // A migration of this release that is missing among newer ones is of another line of releases.
        let is_complete = self.pending().next().is_none();
        if self.has_unknown() && !(is_complete && self.unknown().all(works)) {
            let (found, needed) = (self.newest(), SCHEMA_VERSION);
            return Err(StoreError::SchemaNewer { url: url.to_owned(), found, needed });
        }
        Ok(())
    }

    fn newest(&self) -> i64 {
        self.versions.last().copied().unwrap_or_default()
    }
}

/// Runs the migrations that the database has not had, and returns them. `sql` selects the database.
pub(super) async fn run<C>(
    connection: &mut C,
    sql: fn(&Embedded) -> &'static str,
    url: &str,
) -> Result<Vec<SchemaMigration>>
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
    let versions = had.into_iter().map(|migration| migration.version).collect();
    let applied = AppliedMigrations { versions, ..AppliedMigrations::default() };
    // Without the declarations, so a newer release that migrates at the same time makes this fail.
    let pending = applied.plan(url)?;
    migrator.run_direct(None, connection, false).await.map_err(failed)?;
    Ok(pending)
}

/// Returns the statement that records the declarations of all migrations, for databases that have had
/// them. A declaration that was recorded is only ever raised, whatever the release that runs it.
pub(super) fn record_compatibility() -> String {
    let row = |migration: &Embedded| format!("({}, {})", migration.version, migration.works_with);
    let rows: Vec<_> = MIGRATIONS.iter().map(row).collect();
    format!(
        "insert into schema_compatibility (version, works_with) values {} \
         on conflict (version) do update set works_with = excluded.works_with \
         where excluded.works_with > schema_compatibility.works_with",
        rows.join(", ")
    )
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

    /// Returns the first statement by which an older release could break.
    fn find_contraction(sql: &str) -> Option<String> {
        let code: Vec<_> = sql.lines().map(|line| line.split("--").next().unwrap()).collect();
        let code = code.join(" ").to_lowercase();
        let statements = code
            .split(';')
            .map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "));
        let adds = |statement: &String| {
            let mut columns = statement.split("add column").skip(1);
            let is_table = ["create table ", "create index ", "insert into "];
            statement.is_empty()
                || is_table.iter().any(|verb| statement.starts_with(verb))
                // Versions of projections without rows.
                || statement.starts_with("update projection_checkpoints set projection_version")
                || statement.starts_with("alter table ")
                    && !["drop ", "rename ", "alter column", "add constraint", "add check"]
                        .iter()
                        .any(|change| statement.contains(change))
                    && columns.all(|column| {
                        !column.contains("not null") || column.contains("default")
                    })
        };
        statements.into_iter().find(|statement| !adds(statement))
    }

    #[test]
    fn contracting_statements_are_recognized() {
        let adding = "-- drop\ncreate table a (b text not null); create index c on a (b); \
            alter table d add column e bigint, add column f bigint not null default 0;";
        assert_eq!(find_contraction(adding), None);
        for contracting in [
            "drop table a",
            "alter table a drop column b",
            "alter table a rename to b",
            "alter table a alter column b set not null",
            "alter table a add column b text not null",
            "alter table a add constraint b check (c > 0)",
            "create unique index a on b (c)",
            "delete from a",
            "update orders set status = 'x'",
        ] {
            assert!(find_contraction(contracting).is_some(), "{contracting}");
        }
    }

    #[test]
    fn every_declaration_fits_its_migration() {
        for [before, migration] in MIGRATIONS.array_windows() {
            let Embedded { version, works_with, .. } = *migration;
            assert!((before.works_with..=version).contains(&works_with), "{version}");
            if works_with < version {
                for sql in [migration.postgres, migration.sqlite] {
                    let found = find_contraction(sql);
                    assert_eq!(found, None, "{version} must declare that it works with {version}");
                }
            }
        }
    }

    fn applied(versions: impl IntoIterator<Item = i64>) -> AppliedMigrations {
        AppliedMigrations { versions: versions.into_iter().collect(), ..Default::default() }
    }

    #[test]
    fn older_and_newer_schemas_are_refused_with_advice() {
        let newest = SCHEMA_VERSION;
        let refusal = |applied: AppliedMigrations| {
            applied.check("sqlite://x").err().map(|error| error.to_string())
        };
        assert_eq!(refusal(applied(1..=newest)), None);
        assert!(refusal(applied([])).unwrap().contains("run `dofs migrate`"));
        let older = format!("at version 1, older than the {newest}");
        assert!(refusal(applied([1])).unwrap().contains(&older));
        let newer = format!("at version {}, newer than the {newest}", newest + 1);
        assert!(refusal(applied(1..=newest + 1)).unwrap().contains(&newer));
    }

    #[test]
    fn newer_schema_is_accepted_only_if_every_unknown_migration_allows_it() {
        let newest = SCHEMA_VERSION;
        let accepts = |versions: &[i64], declared: &[(i64, i64)]| {
            let versions = (1..=newest).chain(versions.iter().copied()).collect();
            let works_with = declared.iter().copied().collect();
            let applied = AppliedMigrations { versions, works_with };
            assert_eq!(
                applied.check("").is_ok(),
                applied.plan("").is_ok_and(|plan| plan.is_empty())
            );
            applied.check("").is_ok()
        };
        let (next, second) = (newest + 1, newest + 2);
        assert!(accepts(&[next], &[(next, newest)]));
        assert!(accepts(&[next, second], &[(next, newest - 1), (second, newest)]));
        assert!(!accepts(&[next], &[(next, next)]));
        assert!(!accepts(&[next], &[]));
        assert!(!accepts(&[next, second], &[(second, newest)]));
        assert!(!accepts(&[next, second], &[(next, next), (second, newest)]));
        let mut branched = applied((2..=newest).chain([next]));
        branched.works_with.insert(next, newest);
        assert!(matches!(branched.plan(""), Err(StoreError::SchemaNewer { .. })));
    }
}
