//! Checks of the read model's database: connection, version, privileges, schema, connections, pooler.

use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;
use projectors::{
    ConnectionLimits, Installation as Database, InstallationError, MAX_CONNECTIONS_PER_PROCESS,
    Pooler, PostgresInstallation, ReadModel, SCHEMA_VERSION, StoreError,
};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use service_kit::error::Chain;

use super::Installation;
use super::clocks::judge_clock;
use super::finding::{Finding, Status};
use crate::cli::Role;

/// Names of the checks.
const URL: &str = "read_model.url";
const CONNECTION: &str = "read_model.connection";
const VERSION: &str = "read_model.version";
const ENCODING: &str = "read_model.encoding";
const PRIVILEGES: &str = "read_model.privileges";
const CONNECTIONS: &str = "read_model.pool";
const POOLER: &str = "read_model.pgbouncer";
const FILE: &str = "read_model.file";
const FOLDER: &str = "read_model.folder";
const WAL: &str = "read_model.wal";
const MIGRATIONS: &str = "read_model.migrations";
const CLOCK: &str = "clock.read_model";

/// The oldest PostgreSQL that DOFS was tested with, as `server_version_num`.
const OLDEST_POSTGRES: i64 = 150_000;
const UTF8: &str = "UTF8";
const WAL_MODE: &str = "wal";
const ROLES_ADVICE: &str = "create the roles of `scripts/postgres-roles.sql`, and use the one of the \
    role in `read_model.url`";

/// Checks the read model. Returns its tables if they can be read.
pub(super) async fn examine(
    installation: &Installation<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Arc<ReadModel>> {
    if !installation.uses_read_model() {
        return None;
    }
    let url = &installation.settings.read_model.url;
    findings.push(Finding::ok(URL, url));
    match url.examine_installation(&installation.clock).await {
        Ok(Database::Postgres(database)) => {
            findings.push(Finding::ok(CONNECTION, format!("as user `{}`", database.user)));
            findings.extend(judge_postgres(&database, installation.has_role(Role::Projector)));
            findings.push(judge_clock(CLOCK, database.clock, SignedDuration::ZERO));
        }
        Ok(Database::Sqlite(database)) => {
            let path = url.file().unwrap_or(Path::new(""));
            let files = judge_sqlite(path, database.journal_mode.as_deref());
            let is_missing = database.journal_mode.is_none();
            findings.extend(files);
            if is_missing {
                findings.push(Finding::not_checked(MIGRATIONS, "read_model.file failed"));
                return None;
            }
        }
        Err(error) => {
            findings.push(Finding::fail(CONNECTION, &error, connection_advice(&error)));
            findings.push(Finding::not_checked(MIGRATIONS, "read_model.connection failed"));
            return None;
        }
    }
    let store = url.open();
    let schema = match store.check_schema().await {
        Ok(()) => judge_schema(Ok(store.schema_version().await.ok().flatten())),
        Err(error) => judge_schema(Err(&error)),
    };
    let is_usable = schema.status == Status::Ok;
    findings.push(schema);
    is_usable.then_some(store)
}

fn connection_advice(error: &InstallationError) -> &'static str {
    match error {
        InstallationError::Timeout | InstallationError::Connection(_) => {
            "check that the database runs, the address in `read_model.url`, and the network"
        }
        InstallationError::Tls(_) => {
            "check the certificate of the database, and `sslmode` and `sslrootcert` in \
             `read_model.url`"
        }
        InstallationError::Credentials(_) => {
            "check user and password in `read_model.url`; `scripts/postgres-roles.sql` creates users"
        }
        InstallationError::NoDatabase(_) => {
            "check the name in `read_model.url`, or create it: `create database NAME template \
             template0 encoding 'UTF8'`, then `dofs migrate`"
        }
        InstallationError::NoFreeConnection(_) => {
            "end idle connections, raise `max_connections`, or use PgBouncer"
        }
        InstallationError::PoolerParameter(_) => {
            "add `pgbouncer=true` to `read_model.url`, unless PgBouncer has `pool_mode = session` \
             and `ignore_startup_parameters = extra_float_digits`"
        }
        InstallationError::File(_) => {
            "check the permissions of the file; a damaged file can be deleted: `dofs migrate` and the \
             projector build it anew"
        }
        InstallationError::Other(_) => "check the log of the database",
    }
}

fn judge_postgres(database: &PostgresInstallation, must_write: bool) -> [Finding; 5] {
    [
        judge_version(database),
        judge_encoding(&database.encoding),
        judge_privileges(database, must_write),
        judge_connections(database.limits),
        judge_pooler(database.pooler, database.is_pooler_configured),
    ]
}

fn judge_version(database: &PostgresInstallation) -> Finding {
    let version = &database.version;
    if database.version_number < OLDEST_POSTGRES {
        let detail = format!("PostgreSQL {version} was not tested with DOFS");
        return Finding::warn(VERSION, detail, "upgrade the database to PostgreSQL 15 or newer");
    }
    Finding::ok(VERSION, format!("PostgreSQL {version}"))
}

fn judge_encoding(encoding: &str) -> Finding {
    if encoding == UTF8 {
        return Finding::ok(ENCODING, encoding);
    }
    Finding::fail(
        ENCODING,
        format!("encoding is {encoding}, and names of customers may be in any script"),
        "create another database: `create database NAME template template0 encoding 'UTF8'`",
    )
}

fn judge_privileges(database: &PostgresInstallation, must_write: bool) -> Finding {
    let PostgresInstallation { user, unreadable, unwritable, .. } = database;
    if database.n_tables == 0 {
        return Finding::not_checked(PRIVILEGES, format!("user `{user}` sees no table"));
    }
    if !unreadable.is_empty() {
        let detail = format!("user `{user}` may not read {}", unreadable.join(", "));
        return Finding::fail(PRIVILEGES, detail, ROLES_ADVICE);
    }
    if must_write && !unwritable.is_empty() {
        let detail = format!("user `{user}` may not change {}", unwritable.join(", "));
        return Finding::fail(PRIVILEGES, detail, ROLES_ADVICE);
    }
    if must_write && database.is_read_only {
        let advice = "let `read_model.url` name the primary, e.g. after a failover";
        return Finding::fail(PRIVILEGES, "the server is a standby, or read-only", advice);
    }
    let access = if must_write { "read and change" } else { "read" };
    let superuser = if database.is_superuser { "; it is a superuser" } else { "" };
    Finding::ok(PRIVILEGES, format!("user `{user}` may {access} the tables{superuser}"))
}

fn judge_connections(limits: ConnectionLimits) -> Finding {
    let ConnectionLimits { max, n_open, limit } = limits;
    let n_free = max - n_open;
    let advice = "raise `max_connections`, run fewer processes, or use PgBouncer";
    if let Some(limit) = limit.filter(|limit| *limit < MAX_CONNECTIONS_PER_PROCESS) {
        return Finding::warn(
            CONNECTIONS,
            format!(
                "user or database allows {limit} connections, and a process opens up to \
                 {MAX_CONNECTIONS_PER_PROCESS}"
            ),
            "raise `connection limit` of the user and the database",
        );
    }
    let detail = format!("{n_open} of {max} connections are open");
    if n_free < MAX_CONNECTIONS_PER_PROCESS {
        let detail = format!("{detail}, and a process opens up to {MAX_CONNECTIONS_PER_PROCESS}");
        return Finding::warn(CONNECTIONS, detail, advice);
    }
    Finding::ok(CONNECTIONS, detail)
}

fn judge_pooler(found: Pooler, is_configured: bool) -> Finding {
    match (found, is_configured) {
        (Pooler::None, false) => Finding::ok(POOLER, "not used"),
        (Pooler::None, true) => Finding::warn(
            POOLER,
            "`read_model.url` has `pgbouncer=true`, and no PgBouncer was found",
            "remove `pgbouncer=true`: it costs four round trips per use of a connection",
        ),
        (Pooler::TransactionBouncer, false) => Finding::fail(
            POOLER,
            "PgBouncer gives each transaction another session (`pool_mode = transaction`)",
            "add `pgbouncer=true` to `read_model.url`",
        ),
        (Pooler::Bouncer, false) => Finding::warn(
            POOLER,
            "PgBouncer was found, and its `pool_mode` is unknown",
            "add `pgbouncer=true` to `read_model.url` unless it has `pool_mode = session`",
        ),
        (Pooler::TransactionBouncer | Pooler::Bouncer, true) => {
            Finding::ok(POOLER, "PgBouncer, as configured")
        }
    }
}

/// Judges a SQLite file; `journal_mode` is `None` if the file does not exist.
fn judge_sqlite(path: &Path, journal_mode: Option<&str>) -> Vec<Finding> {
    let Some(journal_mode) = journal_mode else {
        let detail = format!("{} does not exist", path.display());
        let advice =
            "check `read_model.url`; a new read model is created by `dofs migrate --create`";
        return vec![Finding::fail(FILE, detail, advice)];
    };
    // SQLite creates the write-ahead log beside the file.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    let advice = "let the user of the processes own file and folder";
    let judge_writable = |check, path: &Path| {
        if is_writable(path) {
            return Finding::ok(check, format!("{} is writable", path.display()));
        }
        Finding::fail(check, format!("{} is not writable by this user", path.display()), advice)
    };
    vec![
        judge_writable(FILE, path),
        judge_writable(FOLDER, folder),
        if journal_mode == WAL_MODE {
            Finding::ok(WAL, "journal mode is wal")
        } else {
            Finding::warn(
                WAL,
                format!("journal mode is {journal_mode}: another program has changed it"),
                "start a role: it sets `wal`, which needs a local file system",
            )
        },
    ]
}

fn is_writable(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Judges the version of the schema, or the error of the check.
fn judge_schema(checked: Result<Option<i64>, &StoreError>) -> Finding {
    match checked {
        Ok(version) => {
            let detail = match version {
                Some(version) if version > SCHEMA_VERSION => format!(
                    "schema is at version {version}, newer than the {SCHEMA_VERSION} of this release, \
                     which works with it"
                ),
                Some(version) => format!("schema is up to date at version {version}"),
                None => "schema is up to date".to_owned(),
            };
            Finding::ok(MIGRATIONS, detail)
        }
        Err(StoreError::SchemaOlder { found, needed, .. }) => Finding::fail(
            MIGRATIONS,
            format!("schema is at version {found}, and this release needs {needed}"),
            "run `dofs migrate` as the owner of the tables",
        ),
        Err(StoreError::SchemaNewer { found, needed, .. }) => Finding::fail(
            MIGRATIONS,
            format!(
                "schema is at version {found}, newer than the {needed} of this release, and breaks it"
            ),
            "run the release of `dofs` that migrated it, or a newer one; docs/UPGRADING.md names the way \
             back",
        ),
        Err(error) if error.is_denied() => Finding::fail(MIGRATIONS, Chain(error), ROLES_ADVICE),
        Err(error) => Finding::fail(
            MIGRATIONS,
            Chain(error),
            "check the log of the database; a damaged SQLite file can be deleted: `dofs migrate` and \
             the projector build it anew",
        ),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use projectors::ClockReading;

    use super::*;

    fn database() -> PostgresInstallation {
        let epoch = Timestamp::UNIX_EPOCH;
        PostgresInstallation {
            version: "15.4".to_owned(),
            version_number: 150_004,
            encoding: UTF8.to_owned(),
            user: "dofs_api".to_owned(),
            is_superuser: false,
            is_read_only: false,
            limits: ConnectionLimits { max: 97, n_open: 20, limit: None },
            n_tables: 7,
            unreadable: Vec::new(),
            unwritable: Vec::new(),
            pooler: Pooler::None,
            is_pooler_configured: false,
            clock: ClockReading { asked_at: epoch, time: epoch, answered_at: epoch },
        }
    }

    #[test]
    fn sound_database_has_no_finding() {
        for must_write in [false, true] {
            for finding in judge_postgres(&database(), must_write) {
                assert_eq!(finding.status, Status::Ok, "{finding:?}");
            }
        }
    }

    #[test]
    fn old_version_and_other_encoding_are_found() {
        let old = PostgresInstallation { version_number: 140_009, ..database() };
        assert_eq!(judge_version(&old).status, Status::Warn);
        assert_eq!(judge_encoding("LATIN1").status, Status::Fail);
    }

    #[test]
    fn only_projectors_need_to_write() {
        let tables = vec!["orders".to_owned()];
        let reader = PostgresInstallation { unwritable: tables.clone(), ..database() };
        assert_eq!(judge_privileges(&reader, false).status, Status::Ok);
        let denied = judge_privileges(&reader, true);
        assert_eq!(denied.status, Status::Fail);
        assert_eq!(denied.detail, "user `dofs_api` may not change orders");
        let standby = PostgresInstallation { is_read_only: true, ..database() };
        assert_eq!(judge_privileges(&standby, false).status, Status::Ok);
        assert_eq!(judge_privileges(&standby, true).status, Status::Fail);
        let blind = PostgresInstallation { unreadable: tables, ..database() };
        assert_eq!(judge_privileges(&blind, false).status, Status::Fail);
        let empty = PostgresInstallation { n_tables: 0, ..database() };
        assert_eq!(judge_privileges(&empty, false).status, Status::Warn);
    }

    #[test]
    fn connections_of_one_process_must_be_free() {
        let judge =
            |n_open, limit| judge_connections(ConnectionLimits { max: 97, n_open, limit }).status;
        assert_eq!(judge(87, None), Status::Ok);
        assert_eq!(judge(88, None), Status::Warn);
        assert_eq!(judge(1, Some(9)), Status::Warn);
        assert_eq!(judge(1, Some(10)), Status::Ok);
    }

    #[test]
    fn pooler_must_be_as_configured() {
        let judge = |found, is_configured| judge_pooler(found, is_configured).status;
        assert_eq!(judge(Pooler::None, false), Status::Ok);
        assert_eq!(judge(Pooler::None, true), Status::Warn);
        assert_eq!(judge(Pooler::Bouncer, false), Status::Warn);
        assert_eq!(judge(Pooler::TransactionBouncer, false), Status::Fail);
        assert_eq!(judge(Pooler::TransactionBouncer, true), Status::Ok);
        assert_eq!(judge(Pooler::Bouncer, true), Status::Ok);
    }

    #[test]
    fn sqlite_needs_file_folder_and_write_ahead_log() {
        let statuses = |path: &Path, mode| {
            let findings = judge_sqlite(path, mode);
            findings.iter().map(|finding| finding.status).collect::<Vec<_>>()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.sqlite");
        assert_eq!(statuses(&path, None), [Status::Fail]);
        std::fs::write(&path, "").unwrap();
        assert_eq!(statuses(&path, Some("wal")), [Status::Ok; 3]);
        assert_eq!(statuses(&path, Some("delete")), [Status::Ok, Status::Ok, Status::Warn]);
    }

    #[test]
    fn schema_that_differs_names_the_command() {
        let url = String::new();
        let older = StoreError::SchemaOlder { url: url.clone(), found: 3, needed: 6 };
        let older = judge_schema(Err(&older));
        assert_eq!(older.status, Status::Fail);
        assert!(older.advice.unwrap().contains("`dofs migrate`"));
        let newer = StoreError::SchemaNewer { url, found: 7, needed: 6 };
        assert!(judge_schema(Err(&newer)).detail.contains("newer than the 6"));
        let works = judge_schema(Ok(Some(SCHEMA_VERSION + 1)));
        assert_eq!(works.status, Status::Ok);
        assert!(works.detail.ends_with("of this release, which works with it"), "{works:?}");
    }
}
