//! Privileges of the PostgreSQL roles.

use std::sync::Arc;

use projectors::{Begin, OrderFilter, Page, ReadModel, StoreError, SwapWhen, migrate, open};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testkit::postgres;

use crate::contract::project;
use crate::events::{History, id};
use crate::system::clock;

const ROLES: &str = include_str!("../../../scripts/postgres-roles.sql");
/// PostgreSQL's code for missing privileges.
const DENIED: &str = "42501";

#[track_caller]
fn assert_denied<T: std::fmt::Debug>(outcome: &Result<T, StoreError>) {
    let Err(StoreError::Database(sqlx::Error::Database(error))) = outcome else {
        panic!("not denied: {outcome:?}")
    };
    assert_eq!(error.code().as_deref(), Some(DENIED), "{error}");
}

async fn may(store: &Arc<ReadModel>) {
    let page = Page { after: None, limit: 10 };
    store.check_schema().await.unwrap();
    store.ping().await.unwrap();
    assert_eq!(store.orders(&OrderFilter::default(), &page).await.unwrap().len(), 1);
    assert_eq!(store.count_orders().await.unwrap().n_processing, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_roles_have_least_privileges() {
    // Roles belong to the server, so the test has its own server.
    let server = postgres::start_private_server();
    let mut superuser = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(ROLES)).execute(&mut superuser).await.unwrap();
    let url_of = |role: &str| server.url().replace("postgres@", &format!("{role}@"));
    let of = |role: &str| open(&url_of(role)).unwrap();

    for role in ["dofs_projector", "dofs_api"] {
        assert!(migrate(&url_of(role)).await.is_err(), "{role} makes no tables");
    }
    migrate(&url_of("dofs_owner")).await.unwrap();
    let (owner, projector, api) = (of("dofs_owner"), of("dofs_projector"), of("dofs_api"));
    project(&projector, &History::of(1).placed().events()).await;

    // Also after a rebuild, which swaps other tables in.
    for _time in 0..2 {
        may(&projector).await;
        may(&api).await;
        let checkpoint = projector.checkpoint().await.unwrap();
        let lease = api.lease().await.unwrap();
        assert_denied(&api.take_lease(&lease, "api").await);
        assert_denied(
            &api.write(&projectors::RowChanges::default(), &checkpoint, &checkpoint).await,
        );
        assert_denied(&api.next_set(Begin::Anew).await.map(|_| ()));
        assert_denied(&projector.next_set(Begin::Anew).await.map(|_| ()));
        assert_denied(&api.mend_rows(&std::collections::BTreeMap::new(), &checkpoint).await);

        let next = owner.next_set(Begin::Anew).await.unwrap();
        project(&next, &History::of(1).placed().events()).await;
        owner.complete_next_set(&mut |_, _| {}).await.unwrap();
        let built = next.checkpoint().await.unwrap();
        owner.swap(&built, SwapWhen::Anyway, clock().now(), &mut |_, _| {}).await.unwrap();
    }
    may(&api).await;
    assert!(projector.order(id(1)).await.unwrap().is_some());
}
