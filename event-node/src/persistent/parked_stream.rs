//! A group's parked stream: one link for each parked message. Clients may read it.

use prost::bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use crate::log::{
    Append, Direction, ExpectedRevision, GroupKey, LINK_TYPE, Log, LogError, METADATA_TYPE,
    NewEvent, ResolvedEvent, StreamQuery, StreamRead, WriteOutcome, WriteRequest, metastream_of,
};

/// Format of times: as EventStoreDB writes them on a server in UTC.
pub(super) const TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.f+00:00";

#[derive(Debug)]
pub(super) struct MessageToPark {
    /// Id of the original event.
    pub id: Uuid,
    pub resolved: ResolvedEvent,
    pub reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordMetadata<'a> {
    added: &'a str,
    reason: &'a str,
    /// Revision of the original event. As in EventStoreDB, 0 is left out.
    #[serde(skip_serializing_if = "is_zero")]
    subscription_event_number: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Appends messages to the parked stream, all or none. Returns whether they are durable.
pub(super) async fn append_parked(log: &Log, key: &GroupKey, messages: &[MessageToPark]) -> bool {
    let added = log.clock().now().strftime(TIME_FORMAT).to_string();
    let events: Vec<NewEvent> = messages
        .iter()
        .filter_map(|message| {
            let data = link_data(&message.resolved)?;
            let metadata = RecordMetadata {
                added: &added,
                reason: &message.reason,
                subscription_event_number: message.resolved.original_event()?.revision,
            };
            Some(NewEvent {
                id: log.clock().new_id(),
                event_type: LINK_TYPE.to_owned(),
                is_json: false,
                metadata: serde_json::to_vec_pretty(&metadata).ok()?.into(),
                data,
            })
        })
        .collect();
    // Any revision is fine: only the group's task writes to this stream.
    let append = Append { stream: key.parked_stream(), expected: ExpectedRevision::Any, events };
    matches!(log.write(WriteRequest::Append(append)).await, Ok(WriteOutcome::Written { .. }))
}

/// Returns the data of the parked message's link: the event, or the target of a broken link.
fn link_data(resolved: &ResolvedEvent) -> Option<Bytes> {
    match (&resolved.event, &resolved.link) {
        (Some(event), _) => Some(format!("{}@{}", event.revision, event.stream).into()),
        (None, Some(link)) => Some(link.data.clone()),
        (None, None) => None,
    }
}

/// Access control list that EventStoreDB gives a parked stream when it truncates it.
const ADMINS_ONLY: &str =
    r#"{"$r":"$admins","$w":"$admins","$d":"$admins","$mr":"$admins","$mw":"$admins"}"#;

/// Truncates the parked stream before the revision `before`. Returns whether that is durable.
///
/// Unlike EventStoreDB, keeps an access control list that the stream already has (`parked-acl` in
/// docs/event-store-compatibility.md).
pub(super) async fn truncate_before(log: &Log, key: &GroupKey, before: u64) -> bool {
    let stream = key.parked_stream();
    let Ok(acl) = log.read_raw_acl(&stream).await else { return false };
    let acl = acl.map_or_else(|| ADMINS_ONLY.to_owned(), |acl| acl.to_string());
    let data = format!("{{\"$tb\":{before},\"$acl\":{acl}}}");
    let metastream = metastream_of(&stream);
    let written = log.append_json_event(metastream, METADATA_TYPE, data).await;
    matches!(written, Ok(WriteOutcome::Written { .. }))
}

/// Returns the first and last revision of the parked messages, or `None` without parked messages.
pub(super) async fn read_bounds(log: &Log, key: &GroupKey) -> Result<Option<(u64, u64)>, LogError> {
    Ok(match log.read_newest_event(&key.parked_stream()).await? {
        StreamRead::Page(page) if page.first_visible <= page.last => {
            Some((page.first_visible, page.last))
        }
        StreamRead::Page(_) | StreamRead::Missing | StreamRead::Deleted => None,
    })
}

/// Returns when the oldest parked message from revision `from` on was parked, in ticks; `None` if
/// there is none, or if the read fails.
pub(crate) async fn oldest_parked_ticks(log: &Log, key: &GroupKey, from: u64) -> Option<i64> {
    let (first, _) = read_bounds(log, key).await.ok()??;
    let oldest = first.max(from);
    let (messages, _) = read_parked(log, key, oldest..oldest + 1).await.ok()?;
    Some(messages.first()?.1.original_event()?.created_ticks)
}

/// Reads parked messages with the events that they link to. Also returns the revision at which the
/// next read continues.
pub(super) async fn read_parked(
    log: &Log,
    key: &GroupKey,
    range: std::ops::Range<u64>,
) -> Result<(Vec<(u64, ResolvedEvent)>, u64), LogError> {
    let query = StreamQuery {
        stream: key.parked_stream(),
        direction: Direction::Forwards,
        from: range.start,
        limit: usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX),
        now_ticks: log.now_ticks(),
    };
    let page = match log.read_stream(query).await? {
        StreamRead::Page(page) => page,
        StreamRead::Missing | StreamRead::Deleted => return Ok((Vec::new(), range.end)),
    };
    // Without a next page, the rest of the range does not exist.
    let next = page.next.unwrap_or(range.end).min(range.end);
    let revisions: Vec<u64> = page.events.iter().map(|event| event.revision).collect();
    // Independent of the group's `resolve_links`: a replay delivers the event that was parked, not
    // its link.
    let resolved = log.resolve_events(page.events, true).await?;
    let parked = revisions.into_iter().zip(resolved);
    Ok((parked.filter(|(revision, _)| range.contains(revision)).collect(), next))
}
