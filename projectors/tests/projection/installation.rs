//! Inspection of a read model's database: what the user sees, and whether a pooler is in between.

use projectors::{
    Installation, InstallationError, Pooler, PostgresInstallation, ReadModelUrl, migrate,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testkit::pgbouncer::PgBouncer;
use testkit::postgres;

use crate::system::clock;

const ROLES: &str = include_str!("../../../scripts/postgres-roles.sql");

async fn examine(url: &str) -> Result<PostgresInstallation, InstallationError> {
    let url: ReadModelUrl = url.parse().unwrap();
    match url.examine_installation(&clock()).await? {
        Installation::Postgres(found) => Ok(*found),
        Installation::Sqlite(found) => panic!("not PostgreSQL: {found:?}"),
    }
}

#[tokio::test]
async fn privileges_of_each_role_are_found() {
    // Roles belong to the server, so the test has its own server.
    let server = tokio::task::spawn_blocking(postgres::start_private_server).await.unwrap();
    let mut superuser = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(ROLES)).execute(&mut superuser).await.unwrap();
    let url_of = |role: &str| server.url().replace("postgres@", &format!("{role}@"));
    assert_eq!(examine(&url_of("dofs_api")).await.unwrap().n_tables, 0);
    migrate(&url_of("dofs_owner")).await.unwrap();

    let api = examine(&url_of("dofs_api")).await.unwrap();
    assert_eq!((api.user.as_str(), api.encoding.as_str(), api.n_tables), ("dofs_api", "UTF8", 8));
    assert!(api.unreadable.is_empty() && api.unwritable.len() == 8, "{api:?}");
    assert!(!api.is_superuser && !api.is_read_only && api.pooler == Pooler::None, "{api:?}");
    assert!(api.limits.n_open >= 1 && api.limits.max > api.limits.n_open, "{api:?}");
    assert!(api.version_number >= 150_000 && api.version.starts_with('1'), "{api:?}");
    let projector = examine(&url_of("dofs_projector")).await.unwrap();
    assert!(projector.unreadable.is_empty() && projector.unwritable.is_empty(), "{projector:?}");

    let limit = "alter role dofs_api connection limit 4";
    sqlx::raw_sql(limit).execute(&mut superuser).await.unwrap();
    sqlx::raw_sql("revoke select on orders from dofs_api").execute(&mut superuser).await.unwrap();
    let api = examine(&url_of("dofs_api")).await.unwrap();
    assert_eq!((api.limits.limit, api.unreadable), (Some(4), vec!["orders".to_owned()]));
}

#[tokio::test]
async fn pgbouncer_in_transaction_mode_is_found() {
    let server = tokio::task::spawn_blocking(postgres::start_private_server).await.unwrap();
    let Some(bouncer) = PgBouncer::start(&server) else { return };
    let url = bouncer.url("postgres");
    let found = examine(&url).await.unwrap();
    assert_eq!((found.pooler, found.is_pooler_configured), (Pooler::TransactionBouncer, true));
    let refused = examine(url.trim_end_matches("?pgbouncer=true")).await.unwrap_err();
    assert!(matches!(refused, InstallationError::PoolerParameter(_)), "{refused:?}");
    let missing = examine(&url.replace("/postgres?", "/nonexistent?")).await.unwrap_err();
    assert!(matches!(missing, InstallationError::NoDatabase(_)), "{missing:?}");
}
