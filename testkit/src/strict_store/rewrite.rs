//! Changes to the messages between a client and the node, to those that a real store would send.

use bytes::Bytes;
use conformance::protocol::event_store::client::persistent_subscriptions as groups;
use conformance::protocol::event_store::client::{AllStreamPosition, RecordedEvent, streams};
use prost::Message;

use super::positions::{from_offset, to_offset, to_offset_text};

/// Converts a request for the node; `None` if it contains a position at which no event begins.
pub(super) fn rewrite_request(method: &str, message: &Bytes) -> Option<Bytes> {
    use streams::read_options::{Source, all::PositionOption};
    if method != "Streams/Read" {
        return Some(message.clone());
    }
    let mut request: streams::ReadReq = decode(message);
    if let Some(Source::All(all)) =
        request.options.as_mut().and_then(|options| options.source.as_mut())
        && let Some(PositionOption::Position(position)) = &mut all.position_option
    {
        position.commit_position = from_offset(position.commit_position)?;
        position.prepare_position = from_offset(position.prepare_position)?;
    }
    Some(request.encode_to_vec().into())
}

/// Converts a response to that of a real store.
pub(super) fn rewrite_response(method: &str, message: &Bytes, n_delivered: u64) -> Bytes {
    match method {
        "Streams/Read" => rewrite(message, rewrite_read),
        "Streams/Append" => rewrite(message, |response: &mut streams::AppendResp| {
            use streams::append_resp::{Result, success::PositionOption};
            if let Some(Result::Success(success)) = &mut response.result
                && let Some(PositionOption::Position(position)) = &mut success.position_option
            {
                position.commit_position = to_offset(position.commit_position);
                position.prepare_position = to_offset(position.prepare_position);
            }
        }),
        "Streams/BatchAppend" => rewrite(message, |response: &mut streams::BatchAppendResp| {
            use streams::batch_append_resp::{Result, success::PositionOption};
            if let Some(Result::Success(success)) = &mut response.result
                && let Some(PositionOption::Position(position)) = &mut success.position_option
            {
                rewrite_position(position);
            }
        }),
        "PersistentSubscriptions/Read" => rewrite(message, |response: &mut groups::ReadResp| {
            use groups::{read_event::Position, read_resp::Content};
            if let Some(Content::Event(event)) = &mut response.content {
                event.event.iter_mut().chain(&mut event.link).for_each(rewrite_event);
                if let Some(Position::CommitPosition(commit)) = &mut event.position {
                    *commit = to_offset(*commit);
                }
            }
        }),
        "PersistentSubscriptions/GetInfo" => {
            rewrite(message, |response: &mut groups::GetInfoResp| {
                let info = response.subscription_info.iter_mut();
                info.for_each(|info| rewrite_info(info, n_delivered));
            })
        }
        "PersistentSubscriptions/List" => rewrite(message, |response: &mut groups::ListResp| {
            response.subscriptions.iter_mut().for_each(|info| rewrite_info(info, n_delivered));
        }),
        _ => message.clone(),
    }
}

fn rewrite<M: Message + Default>(message: &Bytes, change: impl FnOnce(&mut M)) -> Bytes {
    let mut decoded = decode(message);
    change(&mut decoded);
    decoded.encode_to_vec().into()
}

fn decode<M: Message + Default>(message: &Bytes) -> M {
    M::decode(message.clone()).expect("clients and node send valid messages")
}

fn rewrite_read(response: &mut streams::ReadResp) {
    use streams::{read_event::Position, read_resp::Content};
    match &mut response.content {
        Some(Content::Event(event)) => {
            event.event.iter_mut().chain(&mut event.link).for_each(rewrite_event);
            if let Some(Position::CommitPosition(commit)) = &mut event.position {
                *commit = to_offset(*commit);
            }
        }
        Some(Content::Checkpoint(position) | Content::LastAllStreamPosition(position)) => {
            rewrite_position(position);
        }
        Some(
            Content::Confirmation(_)
            | Content::StreamNotFound(_)
            | Content::FirstStreamPosition(_)
            | Content::LastStreamPosition(_)
            | Content::CaughtUp(_),
        )
        | None => {}
    }
}

fn rewrite_event(event: &mut RecordedEvent) {
    event.commit_position = to_offset(event.commit_position);
    event.prepare_position = to_offset(event.prepare_position);
}

fn rewrite_position(position: &mut AllStreamPosition) {
    position.commit_position = to_offset(position.commit_position);
    position.prepare_position = to_offset(position.prepare_position);
}

/// A real server keeps counting delivered and acknowledged events in its live buffer, up to the size of
/// the buffer.
fn rewrite_info(info: &mut groups::SubscriptionInfo, n_delivered: u64) {
    info.last_checkpointed_event_position = to_offset_text(&info.last_checkpointed_event_position);
    info.last_known_event_position = to_offset_text(&info.last_known_event_position);
    info.start_from = to_offset_text(&info.start_from);
    let kept = i64::try_from(n_delivered).unwrap_or(i64::MAX).min(info.live_buffer_size.into());
    info.live_buffer_count = info.live_buffer_count.max(kept);
}
