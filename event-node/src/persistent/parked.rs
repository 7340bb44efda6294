//! A group's parked messages: links in a stream of their own, which clients may read.

use prost::bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::log::{
    Append, Direction, Expected, GroupKey, Log, LogError, NewEvent, Outcome, Resolved, StreamQuery,
    StreamRead, Write, metastream_of, with_truncate_before,
};

/// Event type of a parked message, which is a link.
const LINK_TYPE: &str = "$>";

/// Event type of a stream's metadata.
const METADATA_TYPE: &str = "$metadata";

/// A message to be set aside.
#[derive(Debug)]
pub(super) struct ToPark {
    /// Of the original event.
    pub id: Uuid,
    pub resolved: Resolved,
    pub reason: String,
}

/// Records that messages were set aside, all or none. `true` once that is durable.
pub(super) async fn record(log: &Log, key: &GroupKey, messages: &[ToPark]) -> bool {
    let added = log.clock().now().to_string();
    let events: Vec<NewEvent> = messages
        .iter()
        .filter_map(|message| {
            let data = target_of(&message.resolved)?;
            let mut metadata = Map::new();
            metadata.insert("added".to_owned(), added.clone().into());
            metadata.insert("reason".to_owned(), message.reason.clone().into());
            let number = message.resolved.original().map_or(0, |event| event.revision);
            if number > 0 {
                // The original leaves zeros out.
                metadata.insert("subscriptionEventNumber".to_owned(), number.into());
            }
            Some(NewEvent {
                id: log.clock().new_id(),
                event_type: LINK_TYPE.to_owned(),
                is_json: false,
                metadata: Value::Object(metadata).to_string().into(),
                data,
            })
        })
        .collect();
    append(log, key.parked_stream(), events).await
}

/// What the parked message links to: the event itself, or what a broken link said.
fn target_of(resolved: &Resolved) -> Option<Bytes> {
    match (&resolved.event, &resolved.link) {
        (Some(event), _) => Some(format!("{}@{}", event.revision, event.stream).into()),
        (None, Some(link)) => Some(link.data.clone()),
        (None, None) => None,
    }
}

/// Takes everything before `before` out of the parked stream.
pub(super) async fn truncate(log: &Log, key: &GroupKey, before: u64) -> bool {
    let event = NewEvent {
        id: log.clock().new_id(),
        event_type: METADATA_TYPE.to_owned(),
        is_json: true,
        metadata: Bytes::new(),
        data: with_truncate_before(b"", before).into(),
    };
    append(log, metastream_of(&key.parked_stream()), vec![event]).await
}

async fn append(log: &Log, stream: String, events: Vec<NewEvent>) -> bool {
    // The group is the only one to write here.
    let append = Append { stream, expected: Expected::Any, events };
    matches!(log.write(Write::Append(append)).await, Ok(Outcome::Written { .. }))
}

/// First and last revision of the parked messages; `None` if there are none.
pub(super) async fn extent(log: &Log, key: &GroupKey) -> Result<Option<(u64, u64)>, LogError> {
    let newest = StreamQuery {
        stream: key.parked_stream(),
        direction: Direction::Backwards,
        from: u64::MAX,
        limit: 1,
        now_ticks: log.now_ticks(),
    };
    Ok(match log.read_stream(newest).await? {
        StreamRead::Page(page) if page.first_visible <= page.last => {
            Some((page.first_visible, page.last))
        }
        StreamRead::Page(_) | StreamRead::Missing | StreamRead::Deleted => None,
    })
}

/// Parked messages with what they link to, and the revision to go on at.
pub(super) async fn read(
    log: &Log,
    key: &GroupKey,
    range: std::ops::Range<u64>,
) -> Result<(Vec<(u64, Resolved)>, u64), LogError> {
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
    let next = page.next.unwrap_or(range.end).min(range.end);
    let revisions: Vec<u64> = page.events.iter().map(|event| event.revision).collect();
    let resolved = log.resolve(page.events).await?;
    let parked = revisions.into_iter().zip(resolved);
    Ok((parked.filter(|(revision, _)| range.contains(revision)).collect(), next))
}
