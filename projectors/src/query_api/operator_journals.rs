//! Operators' actions in the journals of the event store: on workers, redrive tasks and API keys.

use std::cmp::Reverse;
use std::collections::HashMap;

use api_types::{OperatorAction, OperatorActionFilter, OperatorActionKind};
use domain::operations::{
    API_KEYS, ApiKeyCreated, ApiKeyRevoked, CONTROL, Control, FailureFilter, Pause, REDRIVES,
    RedriveBegun, RedriveEntry,
};
use event_log::{EventLog, JournalEntry, LogError};
use jiff::{SignedDuration, Timestamp};

use crate::store::ActionPlace;

/// Number of entries that are read at once.
const PAGE: usize = 500;
/// Maximum number of entries of one journal that are searched.
const MAX_ENTRIES: usize = 10_000;
/// Maximum difference of the clocks of two processes. An entry's time is its writer's: a later entry may
/// have an earlier time, but not by more than this.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Which actions to return: the first of those that match the filter and come behind a place.
pub(super) struct Selection<'a> {
    pub(super) filter: &'a OperatorActionFilter,
    pub(super) after: Option<ActionPlace>,
    pub(super) limit: u32,
}

impl Selection<'_> {
    fn selects(&self, action: &OperatorAction) -> bool {
        let filter = self.filter;
        filter.kind.is_none_or(|kind| kind == action.kind)
            && filter.actor.as_ref().is_none_or(|actor| *actor == action.actor)
            && filter.from.is_none_or(|from| from.0 <= action.at)
            && filter.to.is_none_or(|to| action.at < to.0)
            && self.after.is_none_or(|after| place_of(action) < after)
    }

    /// Returns whether actions of one of these kinds may be selected.
    fn may_select(&self, kinds: &[OperatorActionKind]) -> bool {
        self.filter.kind.is_none_or(|kind| kinds.contains(&kind))
    }

    /// Removes actions that are not selected, and sorts the others, newest first.
    fn apply(&self, actions: &mut Vec<OperatorAction>) {
        actions.retain(|action| self.selects(action));
        actions.sort_by_key(|action| Reverse(place_of(action)));
        actions.truncate(self.limit as usize);
    }

    /// Returns whether no entry before one of this time changes the selected actions.
    fn is_complete(&self, actions: &[OperatorAction], oldest_read: Timestamp) -> bool {
        let newest_unread = oldest_read.saturating_add(MAX_CLOCK_SKEW).unwrap_or(Timestamp::MAX);
        let is_before_range = self.filter.from.is_some_and(|from| newest_unread < from.0);
        let is_full = actions.len() >= self.limit as usize;
        is_before_range || (is_full && actions.last().is_some_and(|last| newest_unread < last.at))
    }
}

/// Returns an action's place in a list.
pub(super) fn place_of(action: &OperatorAction) -> ActionPlace {
    ActionPlace { at: action.at, event_id: action.event_id }
}

/// Reads the selected actions of all journals, in any order.
pub(super) async fn read_journals(
    log: &EventLog,
    selection: &Selection<'_>,
) -> Result<Vec<OperatorAction>, LogError> {
    use OperatorActionKind::{RedriveCancelled, RedriveStarted, WorkersPaused, WorkersResumed};
    let (controls, redrives, keys) = tokio::try_join!(
        read_journal(log, CONTROL, &[WorkersPaused, WorkersResumed], selection, to_control),
        read_journal(log, REDRIVES, &[RedriveStarted, RedriveCancelled], selection, to_redrive),
        read_api_keys(log, selection),
    )?;
    Ok([controls, redrives, keys].concat())
}

/// Reads a journal backwards until all selected actions are found.
async fn read_journal(
    log: &EventLog,
    stream: &'static str,
    kinds: &[OperatorActionKind],
    selection: &Selection<'_>,
    to_action: fn(&JournalEntry) -> Option<OperatorAction>,
) -> Result<Vec<OperatorAction>, LogError> {
    let mut actions = Vec::new();
    if !selection.may_select(kinds) {
        return Ok(actions);
    }
    let journal = log.store().open_journal(stream);
    let mut entries = journal.newest_entries(PAGE).await?;
    let mut n_read = 0;
    while let Some(oldest) = entries.last() {
        n_read += entries.len();
        actions.extend(entries.iter().filter_map(to_action));
        selection.apply(&mut actions);
        if n_read >= MAX_ENTRIES || selection.is_complete(&actions, oldest.recorded_at) {
            break;
        }
        entries = journal.entries_before(oldest.revision, PAGE).await?;
    }
    Ok(actions)
}

/// Reads the journal of API keys. All entries are read: a revocation does not contain the name of the key.
async fn read_api_keys(
    log: &EventLog,
    selection: &Selection<'_>,
) -> Result<Vec<OperatorAction>, LogError> {
    if !selection
        .may_select(&[OperatorActionKind::ApiKeyCreated, OperatorActionKind::ApiKeyRevoked])
    {
        return Ok(Vec::new());
    }
    let entries = log.store().open_journal(API_KEYS).newest_entries(MAX_ENTRIES).await?;
    let created = entries.iter().filter_map(JournalEntry::parse::<ApiKeyCreated>);
    let names: HashMap<_, _> = created.map(|key| (key.key_id, key.name)).collect();
    let to_action = |entry: &JournalEntry| {
        let (kind, detail) = match entry.entry_type.as_str() {
            ApiKeyCreated::ENTRY_TYPE => {
                (OperatorActionKind::ApiKeyCreated, entry.parse::<ApiKeyCreated>()?.name)
            }
            ApiKeyRevoked::ENTRY_TYPE => {
                let key_id = entry.parse::<ApiKeyRevoked>()?.key_id;
                let name = names.get(&key_id).cloned().unwrap_or(key_id);
                (OperatorActionKind::ApiKeyRevoked, name)
            }
            _ => return None,
        };
        Some(OperatorAction { detail: Some(detail), ..new_action(entry, kind) })
    };
    let mut actions: Vec<_> = entries.iter().filter_map(to_action).collect();
    selection.apply(&mut actions);
    Ok(actions)
}

/// Returns an action without the members that depend on its kind.
fn new_action(entry: &JournalEntry, kind: OperatorActionKind) -> OperatorAction {
    // In microseconds, like the rows of the read model: a cursor may name either.
    let at = Timestamp::from_microsecond(entry.recorded_at.as_microsecond());
    OperatorAction {
        event_id: entry.event_id,
        kind,
        at: at.unwrap_or(entry.recorded_at),
        actor: entry.actor.clone(),
        reason: None,
        order_id: None,
        task_id: None,
        detail: None,
    }
}

fn to_control(entry: &JournalEntry) -> Option<OperatorAction> {
    let kind = match Control::from_entry_type(&entry.entry_type)? {
        Control::Pause => OperatorActionKind::WorkersPaused,
        Control::Resume => OperatorActionKind::WorkersResumed,
    };
    // A control with unreadable content applies all the same.
    let reason = entry.parse::<Pause>().and_then(|pause| pause.reason);
    Some(OperatorAction { reason, ..new_action(entry, kind) })
}

/// Returns the operator's action; `None` if the process that runs the task wrote the entry.
fn to_redrive(entry: &JournalEntry) -> Option<OperatorAction> {
    match RedriveEntry::decode(&entry.entry_type, entry.data()?)? {
        RedriveEntry::Begun(begun) => Some(OperatorAction {
            reason: Some(begun.reason.clone()),
            task_id: Some(begun.task_id),
            detail: Some(describe_redrive(&begun)),
            ..new_action(entry, OperatorActionKind::RedriveStarted)
        }),
        RedriveEntry::Cancelled(cancelled) => Some(OperatorAction {
            task_id: Some(cancelled.task_id),
            ..new_action(entry, OperatorActionKind::RedriveCancelled)
        }),
        RedriveEntry::Moved(_) => None,
    }
}

/// Describes the orders of a redrive task, for people.
fn describe_redrive(begun: &RedriveBegun) -> String {
    let FailureFilter { stage, code, failed_before, order_ids, customer_id } = &begun.filter;
    let parts = [
        Some(match begun.n_total {
            1 => "1 order".to_owned(),
            n_total => format!("{n_total} orders"),
        }),
        stage.map(|stage| format!("stage {}", stage.as_str())),
        code.as_ref().map(|code| format!("code {code}")),
        customer_id.as_ref().map(|customer_id| format!("customer {customer_id}")),
        failed_before.map(|time| format!("failed before {time}")),
        order_ids.as_ref().map(|_| "selected by id".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
