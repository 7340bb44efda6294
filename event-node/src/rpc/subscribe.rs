//! Streams.Read as a subscription: what is there, caught up, and then what comes. A reader that is
//! too slow for that is told when it has caught up again.

use std::sync::Arc;

use tonic::Status;

use crate::{
    log::{
        CatchUpPage, CatchUpRead, CatchUpReader, CatchUpSource, Direction, Filter, MAX_PAGE_EVENTS,
        StreamQuery, StreamRead,
    },
    rpc::{
        Context,
        convert::read_event,
        read::{Format, Start, caught_up, response},
        responses::{End, Responses, Sink, channel},
        status::stream_deleted,
    },
    wire::event_store::client::{
        AllStreamPosition,
        streams::{
            ReadResp,
            read_resp::{Confirmation, Content},
        },
    },
};

/// When a filtered subscription says how far it has looked.
///
/// Positions have no gaps, so the number of events looked at is a difference of positions.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    /// Events looked at between two checkpoints.
    interval: u64,
    /// The position from which the running interval counts.
    counted_from: u64,
    last_sent: u64,
}

impl Checkpoints {
    /// `None` if the interval is 0.
    pub(crate) fn every(interval: u64) -> Option<Self> {
        (interval > 0).then_some(Self { interval, counted_from: 0, last_sent: 0 })
    }

    fn begin_after(&mut self, position: u64) {
        self.counted_from = position;
        self.last_sent = position;
    }

    /// The next checkpoint that is due at or before `position`.
    fn due(&mut self, position: u64) -> Option<u64> {
        let next = self.counted_from.saturating_add(self.interval);
        if next > position {
            return None;
        }
        self.counted_from = next;
        self.sendable(next)
    }

    /// Checkpoints only ever go forward.
    fn sendable(&mut self, position: u64) -> Option<u64> {
        if position <= self.last_sent {
            return None;
        }
        self.last_sent = position;
        Some(position)
    }
}

/// A running subscription.
struct Subscription {
    context: Arc<Context>,
    sink: Sink<ReadResp>,
    follower: CatchUpReader,
    checkpoints: Option<Checkpoints>,
    format: Format,
}

pub(crate) async fn to_stream(
    context: &Arc<Context>,
    name: String,
    start: Start,
    format: Format,
) -> Result<Responses<ReadResp>, Status> {
    let newest = StreamQuery {
        stream: name.clone(),
        direction: Direction::Backwards,
        from: u64::MAX,
        limit: 1,
        now_ticks: context.log.now_ticks(),
    };
    let after_last = match context.log.read_stream(newest).await? {
        StreamRead::Deleted => return Err(stream_deleted(&name)),
        StreamRead::Missing => 0,
        StreamRead::Page(page) => page.last.saturating_add(1),
    };
    let next = match start {
        Start::Beginning => 0,
        Start::At(revision) => revision.saturating_add(1),
        Start::End => after_last,
    };
    let source = CatchUpSource::Stream { name: name.as_str().into() };
    Ok(run(context, CatchUpReader::new(source, next), None, format, name))
}

pub(crate) fn to_all(
    context: &Arc<Context>,
    start: Start,
    filter: Option<Arc<Filter>>,
    mut checkpoints: Option<Checkpoints>,
    format: Format,
) -> Responses<ReadResp> {
    let after = match start {
        Start::Beginning => 0,
        Start::At(position) => position,
        Start::End => context.log.head(),
    };
    context.log.warn_if_far_beyond_end(after, "subscription");
    if let Some(checkpoints) = &mut checkpoints {
        checkpoints.begin_after(after);
    }
    let follower = CatchUpReader::new(CatchUpSource::All { filter }, after.saturating_add(1));
    run(context, follower, checkpoints, format, "$all".to_owned())
}

fn run(
    context: &Arc<Context>,
    follower: CatchUpReader,
    checkpoints: Option<Checkpoints>,
    format: Format,
    stream: String,
) -> Responses<ReadResp> {
    let (sink, responses) = channel(context.stop.clone());
    let subscription =
        Subscription { context: Arc::clone(context), sink, follower, checkpoints, format };
    context.tasks.spawn(subscription.run(stream));
    responses
}

impl Subscription {
    async fn run(mut self, stream: String) {
        let stop = self.context.stop.clone();
        let result = tokio::select! {
            result = self.follow(&stream) => result,
            () = stop.cancelled() => Err(End::Gone),
        };
        self.sink.end(result).await;
    }

    /// Ends only with an error or when nobody listens.
    async fn follow(&mut self, stream: &str) -> Result<(), End> {
        let subscription_id = self.context.log.clock().new_id().to_string();
        let confirmation = Content::Confirmation(Confirmation { subscription_id });
        self.sink.send(response(confirmation)).await?;
        let mut head = self.context.log.watch_head();
        let mut is_live = false;
        loop {
            // What is committed from here on is seen by `changed` below, if not by this page.
            head.borrow_and_update();
            let page = match self.follower.read_page(&self.context.log, MAX_PAGE_EVENTS).await? {
                CatchUpRead::Page(page) => page,
                CatchUpRead::StreamDeleted => return Err(stream_deleted(stream).into()),
            };
            let at_end = page.at_end;
            // More was committed than one page holds: the reader is slower than the writers, and is
            // told when it has caught up again.
            is_live &= at_end;
            self.send_page(page, !is_live).await?;
            if !at_end {
                continue;
            }
            if !is_live {
                self.sink.send(caught_up()).await?;
                is_live = true;
            }
            tokio::select! {
                changed = head.changed() => changed.map_err(|_| End::Gone)?,
                () = self.sink.gone() => return Err(End::Gone),
            }
        }
    }

    async fn send_page(&mut self, page: CatchUpPage, is_catching_up: bool) -> Result<(), End> {
        let events = self.context.resolve(page.events, self.format).await?;
        for resolved in events {
            if let Some(original) = resolved.original_event() {
                self.send_checkpoints(original.position.saturating_sub(1)).await?;
            }
            let event = read_event(&resolved, self.format.ids);
            self.sink.send(response(Content::Event(event))).await?;
        }
        let Some(looked_to) = page.scanned_to else { return Ok(()) };
        self.send_checkpoints(looked_to).await?;
        // Whoever saw nothing that matched still learns how far the log has been searched.
        let last = self.checkpoints.as_mut().filter(|_| is_catching_up && page.at_end);
        match last.and_then(|it| it.sendable(looked_to)) {
            Some(position) => self.sink.send(checkpoint(position)).await,
            None => Ok(()),
        }
    }

    async fn send_checkpoints(&mut self, until: u64) -> Result<(), End> {
        while let Some(position) = self.checkpoints.as_mut().and_then(|it| it.due(until)) {
            self.sink.send(checkpoint(position)).await?;
        }
        Ok(())
    }
}

fn checkpoint(position: u64) -> ReadResp {
    response(Content::Checkpoint(AllStreamPosition {
        commit_position: position,
        prepare_position: position,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_due_once_an_interval() {
        let mut checkpoints = Checkpoints::every(64).unwrap();
        checkpoints.begin_after(10);
        assert_eq!(checkpoints.due(73), None);
        assert_eq!(checkpoints.due(300), Some(74));
        assert_eq!(checkpoints.due(300), Some(138));
        assert_eq!(checkpoints.sendable(138), None);
        assert_eq!(checkpoints.sendable(150), Some(150));
        assert_eq!(checkpoints.due(201), None);
        assert_eq!(checkpoints.due(202), Some(202));
    }

    #[test]
    fn an_interval_of_nothing_is_refused() {
        assert!(Checkpoints::every(0).is_none());
    }
}
