//! Inspection of the read model's database for an operator, over connections of its own. Changes
//! nothing.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::error::Chain;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::time::timeout;

use super::ReadModelUrl;
use super::address::Address;

/// Maximum time for a connection, and for each statement.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that one process opens at most.
pub const MAX_CONNECTIONS_PER_PROCESS: i64 = super::postgres::MAX_CONNECTIONS as i64;
/// Tables of the read model in the live schema.
const TABLES: [&str; 8] = [
    "customer_orders",
    "failed_orders",
    "operator_actions",
    "order_tenants",
    "orders",
    "projection_checkpoints",
    "projection_counts",
    "projection_minutes",
];
/// A session parameter that PostgreSQL ignores and `PgBouncer` refuses.
const UNKNOWN_PARAMETER: (&str, &str) = ("dofs.inspection", "1");
/// Text of `PgBouncer`'s refusal of a session parameter.
const PARAMETER_REFUSED: &str = "unsupported startup parameter";

/// Why the database cannot be inspected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstallationError {
    #[error("database did not respond within 3 s")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connection(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("user or password refused: {0}")]
    Credentials(String),
    #[error("no such database: {0}")]
    NoDatabase(String),
    #[error("no connection is free: {0}")]
    NoFreeConnection(String),
    /// `PgBouncer` refuses a session parameter, which the address sends without `pgbouncer=true`.
    #[error("PgBouncer refuses a session parameter: {0}")]
    PoolerParameter(String),
    #[error("SQLite file cannot be read: {0}")]
    File(String),
    #[error("{0}")]
    Other(String),
}

/// State of the read model's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installation {
    Postgres(Box<PostgresInstallation>),
    Sqlite(SqliteInstallation),
}

/// State of a PostgreSQL database, as the user of `read_model.url` sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresInstallation {
    /// E.g. `15.4`.
    pub version: String,
    /// E.g. 150004.
    pub version_number: i64,
    pub encoding: String,
    pub user: String,
    pub is_superuser: bool,
    /// Whether the server is a standby, or transactions are read-only by default.
    pub is_read_only: bool,
    pub limits: ConnectionLimits,
    /// Number of tables that exist.
    pub n_tables: i64,
    /// Tables that the user may not read.
    pub unreadable: Vec<String>,
    /// Tables that the user may not change.
    pub unwritable: Vec<String>,
    pub pooler: Pooler,
    /// Whether `read_model.url` has `pgbouncer=true`.
    pub is_pooler_configured: bool,
    pub clock: ClockReading,
}

/// Numbers of connections of a PostgreSQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections that ordinary users may open: `max_connections` without the reserved ones.
    pub max: i64,
    /// Open connections, those of this inspection included.
    pub n_open: i64,
    /// Connection limit of the user or the database, whichever is lower; `None` without a limit.
    pub limit: Option<i64>,
}

/// A pooler between this process and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    None,
    /// `PgBouncer`; no change of the session was seen.
    Bouncer,
    /// `PgBouncer` that gives each transaction another session.
    TransactionBouncer,
}

/// Time of another machine, and of this one before and after it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    pub asked_at: Timestamp,
    pub time: Timestamp,
    pub answered_at: Timestamp,
}

/// State of a SQLite database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteInstallation {
    /// `None` if the file does not exist.
    pub journal_mode: Option<String>,
}

impl ReadModelUrl {
    /// Inspects the database at this URL. Takes 15 s at most, as a rule milliseconds.
    pub async fn examine_installation(
        &self,
        clock: &Clock,
    ) -> Result<Installation, InstallationError> {
        match &self.address {
            Address::Postgres(options, sessions) => {
                let is_pooler_configured = *sessions == super::postgres::sessions::Sessions::Pooled;
                let found = examine_postgres(options, is_pooler_configured, clock).await?;
                Ok(Installation::Postgres(Box::new(found)))
            }
            Address::Sqlite(path) => Ok(Installation::Sqlite(examine_sqlite(path).await?)),
        }
    }
}

async fn examine_postgres(
    options: &PgConnectOptions,
    is_pooler_configured: bool,
    clock: &Clock,
) -> Result<PostgresInstallation, InstallationError> {
    // With the configured options: a parameter that the server refuses must show.
    let mut connection = connect_postgres(options).await?;
    let asked_at = clock.now();
    let row = fetch_row(&mut connection, &describe_database()).await?;
    let answered_at = clock.now();
    let pooler = detect_pooler(options, &mut connection).await?;
    // The server ends the session by itself if it does not receive the message.
    drop(timeout(STEP_TIMEOUT, connection.close()).await);
    read_row(&row, asked_at, answered_at, (pooler, is_pooler_configured))
        .map_err(|error| classify(&error))
}

/// Returns the statement that describes the database in one row. Simple types only: the row arrives
/// as text, because a prepared statement could stay in a pooler's session.
fn describe_database() -> String {
    let names = TABLES.map(|table| format!("'{table}'")).join(", ");
    format!(
        "/* installation.describe */ with tables as (\
            select oid, relname from pg_class where relkind in ('r', 'p') and relname in ({names}) \
            and relnamespace = (select relnamespace from pg_class \
            where oid = to_regclass('projection_checkpoints'))) \
         select current_setting('server_version') as version, \
            current_setting('server_version_num')::bigint as version_number, \
            current_setting('server_encoding') as encoding, current_user::text as user_name, \
            coalesce((select rolsuper from pg_roles where rolname = current_user), false) \
                as is_superuser, \
            pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' \
                as is_read_only, \
            current_setting('max_connections')::bigint \
                - current_setting('superuser_reserved_connections')::bigint \
                - coalesce(current_setting('reserved_connections', true), '0')::bigint as max, \
            (select sum(numbackends) from pg_stat_database)::bigint as n_open, \
            (select min(allowed) from (\
                select rolconnlimit from pg_roles where rolname = current_user union all \
                select datconnlimit from pg_database where datname = current_database()) \
                as limits (allowed) where allowed >= 0)::bigint as connection_limit, \
            (select count(*) from tables) as n_tables, \
            (select coalesce(string_agg(relname, ',' order by relname), '') from tables \
                where not has_table_privilege(oid, 'select')) as unreadable, \
            (select coalesce(string_agg(relname, ',' order by relname), '') from tables \
                where not (has_table_privilege(oid, 'insert') \
                and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete'))) \
                as unwritable, \
            (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_micros"
    )
}

fn read_row(
    row: &PgRow,
    asked_at: Timestamp,
    answered_at: Timestamp,
    (pooler, is_pooler_configured): (Pooler, bool),
) -> sqlx::Result<PostgresInstallation> {
    let list = |column: &str| -> sqlx::Result<Vec<String>> {
        let names: String = row.try_get(column)?;
        Ok(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    };
    let time = Timestamp::from_microsecond(row.try_get("now_micros")?);
    let time = time.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(PostgresInstallation {
        version: row.try_get("version")?,
        version_number: row.try_get("version_number")?,
        encoding: row.try_get("encoding")?,
        user: row.try_get("user_name")?,
        is_superuser: row.try_get("is_superuser")?,
        is_read_only: row.try_get("is_read_only")?,
        limits: ConnectionLimits {
            max: row.try_get("max")?,
            n_open: row.try_get("n_open")?,
            limit: row.try_get("connection_limit")?,
        },
        n_tables: row.try_get("n_tables")?,
        unreadable: list("unreadable")?,
        unwritable: list("unwritable")?,
        pooler,
        is_pooler_configured,
        clock: ClockReading { asked_at, time, answered_at },
    })
}

async fn connect_postgres(options: &PgConnectOptions) -> Result<PgConnection, InstallationError> {
    match timeout(STEP_TIMEOUT, options.connect()).await {
        Ok(connected) => connected.map_err(|error| classify(&error)),
        Err(_) => Err(InstallationError::Timeout),
    }
}

async fn fetch_row(
    connection: &mut PgConnection,
    statement: &str,
) -> Result<PgRow, InstallationError> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement));
    match timeout(STEP_TIMEOUT, statement.fetch_one(connection)).await {
        Ok(fetched) => fetched.map_err(|error| classify(&error)),
        Err(_) => Err(InstallationError::Timeout),
    }
}

/// Finds out whether a `PgBouncer` is in between, and whether it changes the sessions.
async fn detect_pooler(
    options: &PgConnectOptions,
    first: &mut PgConnection,
) -> Result<Pooler, InstallationError> {
    match connect_postgres(&options.clone().options([UNKNOWN_PARAMETER])).await {
        Ok(plain) => {
            drop(timeout(STEP_TIMEOUT, plain.close()).await);
            return Ok(Pooler::None);
        }
        Err(InstallationError::PoolerParameter(_)) => {}
        Err(error) => return Err(error),
    }
    // Two transactions at a time need two sessions. The pooler gives the session that was returned
    // last to the next transaction: after the second has ended, the first client gets another one.
    let mut second = connect_postgres(options).await?;
    let before = begin_and_find_session(first).await?;
    begin_and_find_session(&mut second).await?;
    fetch_all(first, "commit").await?;
    fetch_all(&mut second, "commit").await?;
    let after = begin_and_find_session(first).await?;
    fetch_all(first, "commit").await?;
    drop(timeout(STEP_TIMEOUT, second.close()).await);
    Ok(if before == after { Pooler::Bouncer } else { Pooler::TransactionBouncer })
}

async fn begin_and_find_session(connection: &mut PgConnection) -> Result<i32, InstallationError> {
    fetch_all(connection, "begin").await?;
    let row = fetch_row(connection, "select pg_backend_pid() as pid").await?;
    row.try_get("pid").map_err(|error| classify(&error))
}

async fn fetch_all(
    connection: &mut PgConnection,
    statement: &'static str,
) -> Result<(), InstallationError> {
    match timeout(STEP_TIMEOUT, sqlx::raw_sql(statement).execute(connection)).await {
        Ok(executed) => executed.map(drop).map_err(|error| classify(&error)),
        Err(_) => Err(InstallationError::Timeout),
    }
}

async fn examine_sqlite(path: &Path) -> Result<SqliteInstallation, InstallationError> {
    if !path.exists() {
        return Ok(SqliteInstallation { journal_mode: None });
    }
    let reading = async {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let mut connection = options.connect().await?;
        let pragma = sqlx::query_scalar("pragma journal_mode");
        let journal_mode: String = pragma.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(SqliteInstallation { journal_mode: Some(journal_mode) })
    };
    match timeout(STEP_TIMEOUT, reading).await {
        Ok(found) => {
            found.map_err(|error: sqlx::Error| InstallationError::File(Chain(&error).to_string()))
        }
        Err(_) => Err(InstallationError::Timeout),
    }
}

/// Names the cause of a failure, by the database's code for it. `PgBouncer` has one code for all.
fn classify(error: &sqlx::Error) -> InstallationError {
    if let sqlx::Error::Io(error) = error {
        return InstallationError::Connection(error.to_string());
    }
    if let sqlx::Error::Tls(error) = error {
        return InstallationError::Tls(error.to_string());
    }
    let sqlx::Error::Database(refusal) = error else {
        return InstallationError::Other(Chain(error).to_string());
    };
    let (code, message) = (refusal.code().unwrap_or_default(), refusal.message().to_owned());
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if message.contains(PARAMETER_REFUSED) {
        InstallationError::PoolerParameter(message)
    } else if code.starts_with("28") || says(&["authentication failed", "no such user"]) {
        InstallationError::Credentials(message)
    } else if code == "3D000" || says(&["no such database"]) || is_database_missing(&message) {
        InstallationError::NoDatabase(message)
    } else if code == "53300" {
        InstallationError::NoFreeConnection(message)
    } else {
        InstallationError::Other(message)
    }
}

/// Returns whether this is PostgreSQL's message for a missing database, which `PgBouncer` passes on
/// with another code.
fn is_database_missing(message: &str) -> bool {
    message.starts_with("database ") && message.ends_with("does not exist")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PROJECTIONS;
    use crate::store::sets::KEYED_TABLES;

    #[test]
    fn every_table_is_inspected() {
        let tables = PROJECTIONS.iter().flat_map(|projection| projection.tables);
        let mut names: Vec<_> = tables.map(|table| table.name).chain(KEYED_TABLES).collect();
        names.sort_unstable();
        assert_eq!(names, TABLES);
    }
}
