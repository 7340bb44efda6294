//! API keys, stored as events in the stream `api-keys`: every process that serves the API reads them,
//! and the record of granted access cannot be edited.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::CommandId;
use domain::operations::{API_KEYS, ApiKeyCreated, ApiKeyRevoked};
use event_log::{Cause, EventLog, ExpectedLast, Journal, JournalEntry, LogError};
use jiff::Timestamp;
use serde::Serialize;
use service_kit::auth::{ApiKey, ApiKeys, Scope};
use service_kit::clock::Clock;
use tokio::sync::watch;
use tokio::time::sleep;

/// Time between two checks of the stream for new events. A revoked key is rejected after at most this
/// time plus that of one read.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Maximum number of events to read, newest first. A revocation is always newer than its key, so
/// beyond the limit a valid key may be lost, but a revoked key is never accepted.
const MAX_EVENTS: usize = 100_000;
/// Actor in the metadata of the events.
const ACTOR: &str = "operator";

/// State of a key, folded from its events.
#[derive(Debug, Clone)]
pub(crate) struct KeyRecord {
    pub(crate) key: ApiKeyCreated,
    pub(crate) created_at: Timestamp,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// The API keys of one event store.
pub(crate) struct KeyStore {
    journal: Journal,
}

impl KeyStore {
    pub(crate) fn new(log: &EventLog) -> Self {
        Self { journal: log.store().open_journal(API_KEYS) }
    }

    /// Returns all keys, oldest first.
    pub(crate) async fn list_keys(&self) -> Result<Vec<KeyRecord>, LogError> {
        let mut entries = self.journal.newest_entries(MAX_EVENTS).await?;
        // `newest_entries` returns the newest first; a revocation is applied after its creation.
        entries.reverse();
        let mut keys: Vec<KeyRecord> = Vec::new();
        for entry in &entries {
            apply_event(entry, &mut keys);
        }
        Ok(keys)
    }

    pub(crate) async fn create_key(
        &self,
        created: &ApiKeyCreated,
        clock: &Clock,
    ) -> Result<(), LogError> {
        self.append_event(ApiKeyCreated::ENTRY_TYPE, created, clock).await
    }

    pub(crate) async fn revoke_key(&self, key_id: &str, clock: &Clock) -> Result<(), LogError> {
        let revoked = ApiKeyRevoked { key_id: key_id.to_owned() };
        self.append_event(ApiKeyRevoked::ENTRY_TYPE, &revoked, clock).await
    }

    async fn append_event(
        &self,
        event_type: &str,
        event: &impl Serialize,
        clock: &Clock,
    ) -> Result<(), LogError> {
        let id = clock.new_id();
        let cause = Cause::new(CommandId::for_request(id), ACTOR, clock.now());
        // Keys are independent of one another, so any expected revision is correct: concurrent
        // operators must not conflict.
        self.journal.append(ExpectedLast::Any, event_type, event, &cause).await.map(drop)
    }
}

/// Applies an event to the keys. An unreadable event, such as one of a later release, may restrict or
/// revoke a key, so it counts as the revocation of the key that it names; without a name, of all keys
/// created before it. It never grants anything.
fn apply_event(entry: &JournalEntry, keys: &mut Vec<KeyRecord>) {
    match entry.entry_type.as_str() {
        ApiKeyCreated::ENTRY_TYPE => {
            if let Some(key) = entry.parse::<ApiKeyCreated>() {
                keys.push(KeyRecord { key, created_at: entry.recorded_at, revoked_at: None });
                return;
            }
        }
        ApiKeyRevoked::ENTRY_TYPE => {
            if let Some(ApiKeyRevoked { key_id }) = entry.parse() {
                for record in keys.iter_mut().filter(|record| record.key.key_id == key_id) {
                    // A second revocation does not change the time of the first.
                    record.revoked_at.get_or_insert(entry.recorded_at);
                }
                return;
            }
        }
        _ => {}
    }
    // Every event about one key names it as a revocation does.
    let named = entry.parse_any_schema().map(|ApiKeyRevoked { key_id }| key_id);
    let is_meant =
        |record: &&mut KeyRecord| named.as_ref().is_none_or(|key_id| *key_id == record.key.key_id);
    for record in keys.iter_mut().filter(is_meant) {
        record.revoked_at.get_or_insert(entry.recorded_at);
    }
    tracing::error!(
        stream = API_KEYS,
        revision = entry.revision,
        event_type = entry.entry_type,
        key.id = named,
        "API key event unreadable: the key is rejected, or all earlier keys if the event names none"
    );
}

/// Publishes the valid keys to `sender` whenever they change, until the future is dropped. While the
/// event store is unreachable, the keys published last stay valid.
pub(crate) async fn publish_changes(
    log: &EventLog,
    environment: &str,
    sender: &watch::Sender<Option<Arc<ApiKeys>>>,
) {
    let store = KeyStore::new(log);
    let mut current = None;
    let mut is_failing = false;
    loop {
        match read_if_changed(&store, current.as_ref()).await {
            Ok(changed) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("API keys readable again");
                }
                if let Some(snapshot) = changed {
                    log_changes(current.as_ref(), &snapshot);
                    let valid = snapshot.keys.iter().filter_map(to_valid_key);
                    sender.send_replace(Some(Arc::new(ApiKeys::new(environment, valid))));
                    current = Some(snapshot);
                }
            }
            Err(error) if !is_failing => {
                is_failing = true;
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "API keys unreadable: keys loaded before stay valid");
            }
            Err(_) => {}
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// All keys, as of a number of events.
struct Snapshot {
    n_events: u64,
    keys: Vec<KeyRecord>,
}

/// Reads the keys, or returns `None` if the stream has no events newer than `current`.
async fn read_if_changed(
    store: &KeyStore,
    current: Option<&Snapshot>,
) -> Result<Option<Snapshot>, LogError> {
    // One event is read to detect a change: revisions are consecutive, so the last one gives the number.
    let n_events =
        store.journal.newest_entries(1).await?.first().map_or(0, |last| last.revision + 1);
    if current.is_some_and(|snapshot| snapshot.n_events == n_events) {
        return Ok(None);
    }
    Ok(Some(Snapshot { n_events, keys: store.list_keys().await? }))
}

/// Logs the keys created and revoked between two snapshots.
fn log_changes(before: Option<&Snapshot>, after: &Snapshot) {
    let n_keys = after.keys.iter().filter(|record| record.revoked_at.is_none()).count();
    let Some(before) = before else {
        tracing::info!(n_keys, "API keys loaded");
        return;
    };
    for KeyRecord { key, revoked_at, .. } in &after.keys {
        let earlier = before.keys.iter().find(|record| record.key.key_id == key.key_id);
        let (id, tenant) = (&key.key_id, key.tenant.as_deref());
        if earlier.is_none() {
            let scopes = key.scopes.join(" ");
            tracing::info!(key.id = id, name = key.name, tenant, scopes, "API key created");
        }
        if revoked_at.is_some() && earlier.is_none_or(|record| record.revoked_at.is_none()) {
            tracing::info!(key.id = id, name = key.name, tenant, "API key revoked");
        }
    }
}

/// Converts a key for the authentication of requests; `None` if it is revoked. Scopes unknown to
/// this release are dropped: they grant nothing. So are operators' scopes of a key of a tenant, which
/// `dofs keys create` refuses: they would show other tenants' orders.
fn to_valid_key(record: &KeyRecord) -> Option<ApiKey> {
    let KeyRecord { key, revoked_at, .. } = record;
    let is_granted = |scope: &Scope| key.tenant.is_none() || !scope.is_for_operators();
    let scopes = key.scopes.iter().filter_map(|name| Scope::from_name(name)).filter(is_granted);
    revoked_at.is_none().then(|| ApiKey {
        id: key.key_id.clone(),
        tenant: key.tenant.clone(),
        scopes: scopes.collect(),
        secret_sha256: key.secret_sha256.clone(),
        expires_at: key.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_a_tenant_never_has_operators_scopes() {
        let scopes_for = |tenant: Option<&str>| {
            let key = ApiKeyCreated {
                key_id: "a".to_owned(),
                name: "shop".to_owned(),
                tenant: tenant.map(str::to_owned),
                scopes: ["orders:read", "ops:read", "ops:write"].map(str::to_owned).into(),
                secret_sha256: String::new(),
                expires_at: None,
            };
            let record = KeyRecord { key, created_at: Timestamp::UNIX_EPOCH, revoked_at: None };
            to_valid_key(&record).map(|key| key.scopes)
        };
        assert_eq!(scopes_for(Some("shop")), Some(vec![Scope::OrdersRead]));
        let all = vec![Scope::OrdersRead, Scope::OpsRead, Scope::OpsWrite];
        assert_eq!(scopes_for(None), Some(all));
    }

    #[test]
    fn unknown_scopes_of_a_key_grant_nothing() {
        let created = ApiKeyCreated {
            key_id: "k".to_owned(),
            name: "n".to_owned(),
            tenant: None,
            scopes: vec!["orders:read".to_owned(), "orders:teleport".to_owned()],
            secret_sha256: "s".to_owned(),
            expires_at: None,
        };
        let created_at = Timestamp::UNIX_EPOCH;
        let record = KeyRecord { key: created, created_at, revoked_at: None };
        let known = Scope::from_name("orders:read").into_iter().collect();
        assert_eq!(to_valid_key(&record).map(|key| key.scopes), Some(known));
    }
}
