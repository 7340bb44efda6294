//! Streams.Read as a catch-up subscription: stored events, `caught_up`, then live events. A client
//! that falls behind gets `caught_up` again when it has caught up.

use std::sync::Arc;

use tonic::Status;

use crate::{
    log::{
        CatchUpPage, CatchUpRead, CatchUpReader, CatchUpSource, Filter, MAX_PAGE_EVENTS, StreamRead,
    },
    persistent::StartFrom,
    rpc::{
        Context,
        convert::{Reader, to_read_event},
        response_stream::{ResponseSink, ResponseStream, StreamEnd, response_channel},
        status::stream_deleted,
    },
    wire::event_store::client::{
        AllStreamPosition, Empty,
        streams::{
            ReadResp,
            read_resp::{Confirmation, Content},
        },
    },
};

/// Decides when a filtered subscription sends a checkpoint.
///
/// Positions count events, so a difference of positions is the number of events in between.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointInterval {
    /// Number of events between two checkpoints.
    n_events: u64,
    /// Position at which the current interval begins.
    counted_from: u64,
    last_sent: u64,
}

impl CheckpointInterval {
    /// Creates an interval. Returns `None` if the number of events is 0.
    pub(crate) fn new(n_events: u64) -> Option<Self> {
        (n_events > 0).then_some(Self { n_events, counted_from: 0, last_sent: 0 })
    }

    fn begin_after(&mut self, position: u64) {
        self.counted_from = position;
        self.last_sent = position;
    }

    /// Returns the next checkpoint that is due at or before `position`.
    fn next_due(&mut self, position: u64) -> Option<u64> {
        let next = self.counted_from.saturating_add(self.n_events);
        if next > position {
            return None;
        }
        self.counted_from = next;
        self.advance_to(next)
    }

    /// Returns the position if it is beyond the last checkpoint: checkpoints never go back.
    fn advance_to(&mut self, position: u64) -> Option<u64> {
        if position <= self.last_sent {
            return None;
        }
        self.last_sent = position;
        Some(position)
    }
}

struct Subscription {
    context: Arc<Context>,
    sink: ResponseSink<ReadResp>,
    follower: CatchUpReader,
    checkpoints: Option<CheckpointInterval>,
    reader: Reader,
}

pub(crate) async fn subscribe_to_stream(
    context: &Arc<Context>,
    name: String,
    start: StartFrom,
    reader: Reader,
) -> Result<ResponseStream<ReadResp>, Status> {
    let after_last = match context.log.read_newest_event(&name).await? {
        StreamRead::Deleted => return Err(stream_deleted(&name)),
        StreamRead::Missing => 0,
        StreamRead::Page(page) => page.last.saturating_add(1),
    };
    let next = match start {
        StartFrom::Beginning => 0,
        // A subscription begins after the given revision, unlike a read, which begins at it.
        StartFrom::At(revision) => revision.saturating_add(1),
        StartFrom::End => after_last,
    };
    let source = CatchUpSource::Stream { name: name.as_str().into() };
    Ok(start_subscription(context, CatchUpReader::new(source, next), None, reader, name))
}

pub(crate) fn subscribe_to_all(
    context: &Arc<Context>,
    start: StartFrom,
    filter: Option<Arc<Filter>>,
    mut checkpoints: Option<CheckpointInterval>,
    reader: Reader,
) -> ResponseStream<ReadResp> {
    let after = match start {
        StartFrom::Beginning => 0,
        StartFrom::At(position) => position,
        StartFrom::End => context.log.head(),
    };
    context.log.warn_if_far_beyond_end(after, "subscription");
    if let Some(checkpoints) = &mut checkpoints {
        checkpoints.begin_after(after);
    }
    let follower = CatchUpReader::new(CatchUpSource::All { filter }, after.saturating_add(1));
    start_subscription(context, follower, checkpoints, reader, "$all".to_owned())
}

fn start_subscription(
    context: &Arc<Context>,
    follower: CatchUpReader,
    checkpoints: Option<CheckpointInterval>,
    reader: Reader,
    stream: String,
) -> ResponseStream<ReadResp> {
    let (sink, responses) = response_channel(context.stop.clone());
    let subscription =
        Subscription { context: Arc::clone(context), sink, follower, checkpoints, reader };
    context.tasks.spawn(subscription.run_until_ended(stream));
    responses
}

impl Subscription {
    async fn run_until_ended(mut self, stream: String) {
        let stop = self.context.stop.clone();
        let result = tokio::select! {
            result = self.send_events(&stream) => result,
            () = stop.cancelled() => Err(StreamEnd::Closed),
        };
        self.sink.end_with(result).await;
    }

    /// Sends events as they are committed. Ends only with an error or when the client has gone.
    async fn send_events(&mut self, stream: &str) -> Result<(), StreamEnd> {
        let subscription_id = self.context.log.clock().new_id().to_string();
        let confirmation = Content::Confirmation(Confirmation { subscription_id });
        self.sink.send(confirmation.into()).await?;
        let mut head = self.context.log.watch_head();
        let mut is_live = false;
        loop {
            // Marks the head as seen before the page is read. A commit after this line wakes
            // `changed` below. In the other order, a commit between both would be missed until the
            // next one.
            head.borrow_and_update();
            let page = match self.follower.read_page(&self.context.log, MAX_PAGE_EVENTS).await? {
                CatchUpRead::Page(page) => page,
                CatchUpRead::StreamDeleted => return Err(stream_deleted(stream).into()),
            };
            let at_end = page.at_end;
            // One page does not reach the end: the client is slower than the writers. It gets
            // `caught_up` again when it has caught up.
            is_live &= at_end;
            self.send_page(page, !is_live).await?;
            if !at_end {
                continue;
            }
            if !is_live {
                self.sink.send(Content::CaughtUp(Empty {}).into()).await?;
                is_live = true;
            }
            tokio::select! {
                changed = head.changed() => changed.map_err(|_| StreamEnd::Closed)?,
                () = self.sink.wait_until_closed() => return Err(StreamEnd::Closed),
            }
        }
    }

    async fn send_page(
        &mut self,
        page: CatchUpPage,
        is_catching_up: bool,
    ) -> Result<(), StreamEnd> {
        let log = &self.context.log;
        let mut events = log.resolve_events(page.events, self.reader.resolve_links).await?;
        self.context.remove_unreadable_targets(&self.reader.caller, &mut events).await?;
        for resolved in events {
            if let Some(original) = resolved.original_event() {
                self.send_checkpoints(original.position.saturating_sub(1)).await?;
            }
            let event = to_read_event(&resolved, self.reader.ids);
            self.sink.send(Content::Event(event).into()).await?;
        }
        let Some(looked_to) = page.scanned_to else { return Ok(()) };
        self.send_checkpoints(looked_to).await?;
        // A client without matching events gets a checkpoint as well. Without it, the client would
        // read the same events again after a restart.
        let last = self.checkpoints.as_mut().filter(|_| is_catching_up && page.at_end);
        match last.and_then(|checkpoints| checkpoints.advance_to(looked_to)) {
            Some(position) => self.sink.send(checkpoint_response(position)).await,
            None => Ok(()),
        }
    }

    async fn send_checkpoints(&mut self, until: u64) -> Result<(), StreamEnd> {
        while let Some(position) =
            self.checkpoints.as_mut().and_then(|checkpoints| checkpoints.next_due(until))
        {
            self.sink.send(checkpoint_response(position)).await?;
        }
        Ok(())
    }
}

fn checkpoint_response(position: u64) -> ReadResp {
    let checkpoint = AllStreamPosition { commit_position: position, prepare_position: position };
    Content::Checkpoint(checkpoint).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_is_due_once_per_interval() {
        let mut checkpoints = CheckpointInterval::new(64).unwrap();
        checkpoints.begin_after(10);
        assert_eq!(checkpoints.next_due(73), None);
        assert_eq!(checkpoints.next_due(300), Some(74));
        assert_eq!(checkpoints.next_due(300), Some(138));
        assert_eq!(checkpoints.advance_to(138), None);
        assert_eq!(checkpoints.advance_to(150), Some(150));
        assert_eq!(checkpoints.next_due(201), None);
        assert_eq!(checkpoints.next_due(202), Some(202));
    }

    #[test]
    fn interval_of_zero_events_is_invalid() {
        assert!(CheckpointInterval::new(0).is_none());
    }
}
