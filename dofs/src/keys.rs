//! The API's keys, as facts in a stream of their own: every process that serves the API sees them,
//! and the audit of who was let in cannot be edited.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::CommandId;
use event_log::{Cause, EventLog, ExpectedLast, Journal, JournalEntry, LogError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::auth::{ApiKey, ApiKeys, Scope};
use service_kit::clock::Clock;
use tokio::sync::watch;
use tokio::time::sleep;

const STREAM: &str = "api-keys";
const CREATED: &str = "ApiKeyCreated";
const REVOKED: &str = "ApiKeyRevoked";
/// Between two looks at the stream: a revoked key is refused this much later, and the time of one
/// read.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The most facts that are read, the newest ones. A revocation is newer than its key: what is
/// beyond the limit is a key that is not known any more, never one that should not be.
const MAX_ENTRIES: usize = 100_000;
/// Who makes and revokes keys, as the facts name them.
const ACTOR: &str = "operator";

/// A key was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Created {
    pub(crate) key_id: String,
    pub(crate) name: String,
    pub(crate) tenant: Option<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) secret_sha256: String,
    pub(crate) expires_at: Option<Timestamp>,
}

/// A key is refused from then on.
#[derive(Debug, Serialize, Deserialize)]
struct Revoked {
    key_id: String,
}

/// A key, and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) key: Created,
    pub(crate) created_at: Timestamp,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// The keys of one event store.
pub(crate) struct Keys {
    journal: Journal,
}

impl Keys {
    pub(crate) fn of(log: &EventLog) -> Self {
        Self { journal: log.open_journal(STREAM) }
    }

    /// Every key, the oldest first.
    pub(crate) async fn all(&self) -> Result<Vec<Known>, LogError> {
        let mut entries = self.journal.newest_entries(MAX_ENTRIES).await?;
        entries.reverse();
        let mut known: Vec<Known> = Vec::new();
        for entry in &entries {
            apply(entry, &mut known);
        }
        Ok(known)
    }

    pub(crate) async fn create(&self, key: &Created, clock: &Clock) -> Result<(), LogError> {
        self.record(CREATED, key, clock).await
    }

    pub(crate) async fn revoke(&self, key_id: &str, clock: &Clock) -> Result<(), LogError> {
        self.record(REVOKED, &Revoked { key_id: key_id.to_owned() }, clock).await
    }

    async fn record(
        &self,
        entry_type: &str,
        fact: &impl Serialize,
        clock: &Clock,
    ) -> Result<(), LogError> {
        let cause = Cause::new(CommandId::for_request(clock.new_id()), ACTOR, clock.now());
        // A key depends on no other: two operators do not stand in one another's way.
        self.journal.append(ExpectedLast::Any, entry_type, fact, &cause).await.map(drop)
    }
}

/// A fact that cannot be read makes no key, and revokes none: it is said, because it may have been
/// meant to.
fn apply(entry: &JournalEntry, known: &mut Vec<Known>) {
    match entry.entry_type.as_str() {
        CREATED => {
            if let Some(key) = entry.parse::<Created>() {
                known.push(Known { key, created_at: entry.recorded_at, revoked_at: None });
                return;
            }
        }
        REVOKED => {
            if let Some(Revoked { key_id }) = entry.parse() {
                for it in known.iter_mut().filter(|it| it.key.key_id == key_id) {
                    it.revoked_at.get_or_insert(entry.recorded_at);
                }
                return;
            }
        }
        _ => {}
    }
    tracing::error!(
        stream = STREAM,
        revision = entry.revision,
        entry_type = entry.entry_type,
        "Fact about API keys cannot be read"
    );
}

/// Sends the keys that are good, and again whenever they change, for as long as it is polled. While the
/// event store cannot be reached, the last ones stay.
pub(crate) async fn follow(
    log: &EventLog,
    environment: &str,
    sender: &watch::Sender<Option<Arc<ApiKeys>>>,
) {
    let keys = Keys::of(log);
    let mut seen = None;
    let mut is_failing = false;
    loop {
        match look(&keys, seen.as_ref()).await {
            Ok(changed) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("API keys can be read again");
                }
                if let Some(now) = changed {
                    log_changes(seen.as_ref(), &now);
                    let good = now.keys.iter().filter_map(good);
                    sender.send_replace(Some(Arc::new(ApiKeys::new(environment, good))));
                    seen = Some(now);
                }
            }
            Err(error) if !is_failing => {
                is_failing = true;
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "API keys cannot be read: those known so far stay");
            }
            Err(_) => {}
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// The keys as they were read.
struct Seen {
    n_facts: u64,
    keys: Vec<Known>,
}

/// The keys, unless there are as many facts about them as were seen before.
async fn look(keys: &Keys, seen: Option<&Seen>) -> Result<Option<Seen>, LogError> {
    let n_facts = keys.journal.newest_entries(1).await?.first().map_or(0, |it| it.revision + 1);
    if seen.is_some_and(|it| it.n_facts == n_facts) {
        return Ok(None);
    }
    Ok(Some(Seen { n_facts, keys: keys.all().await? }))
}

/// Logs which keys were made and revoked since they were last seen.
fn log_changes(before: Option<&Seen>, now: &Seen) {
    let n_keys = now.keys.iter().filter(|it| it.revoked_at.is_none()).count();
    let Some(before) = before else {
        tracing::info!(n_keys, "API keys are known");
        return;
    };
    for Known { key, revoked_at, .. } in &now.keys {
        let known = before.keys.iter().find(|it| it.key.key_id == key.key_id);
        let (id, tenant) = (&key.key_id, key.tenant.as_deref());
        if known.is_none() {
            let scopes = key.scopes.join(" ");
            tracing::info!(key.id = id, name = key.name, tenant, scopes, "API key created");
        }
        if revoked_at.is_some() && known.is_none_or(|it| it.revoked_at.is_none()) {
            tracing::info!(key.id = id, name = key.name, tenant, "API key revoked");
        }
    }
}

/// The key as the API knows it, unless it is revoked. A scope that this release does not know
/// opens nothing.
fn good(known: &Known) -> Option<ApiKey> {
    known.revoked_at.is_none().then(|| ApiKey {
        id: known.key.key_id.clone(),
        tenant: known.key.tenant.clone(),
        scopes: known.key.scopes.iter().filter_map(|it| Scope::from_name(it)).collect(),
        secret_sha256: known.key.secret_sha256.clone(),
        expires_at: known.key.expires_at,
    })
}
