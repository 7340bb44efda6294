//! Streams.Read: parses the request, and serves reads that end. `subscribe` serves subscriptions.

use std::sync::Arc;

use tonic::Status;

use crate::{
    access::{Caller, StreamAction},
    log::{AllQuery, Direction, Filter, MAX_PAGE_EVENTS, StreamQuery, StreamRead},
    persistent::{ALL_STREAM, StartFrom},
    rpc::{
        Context,
        convert::{
            IdFormat, Reader, parse_filter, parse_stream_name, stream_identifier, to_read_event,
        },
        response_stream::{ResponseSink, ResponseStream, StreamEnd, response_channel},
        skipped_revisions::SkippedRevisions,
        status::{handler_threw, stream_deleted},
        subscribe::{self, CheckpointInterval},
    },
    wire::event_store::client::{
        FilterOptions,
        filter_options::Window,
        streams::{
            ReadOptions, ReadReq, ReadResp,
            read_options::{All, Direction as WireDirection, Extent, FilterOption, Source, Stream},
            read_resp::{Content, StreamNotFound},
        },
    },
};

/// Number of events between two checkpoints of a filtered subscription without a window.
const DEFAULT_WINDOW_EVENTS: u32 = 32;

pub(crate) async fn handle_read(
    context: &Arc<Context>,
    caller: Caller,
    request: ReadReq,
) -> Result<ResponseStream<ReadResp>, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let ids = IdFormat::from_option(options.uuid_option.as_ref())
        .ok_or_else(|| Status::invalid_argument("The uuid option is missing."))?;
    authorize_source(context, &caller, options.source.as_ref()).await?;
    let reader = Reader {
        caller,
        ids,
        resolve_links: options.resolve_links,
        reports_positions: options.control_option.is_some_and(|control| control.compatibility >= 1),
    };
    let wire_direction = options.read_direction;
    let ReadOptions { source, extent, filter_option, .. } = options;
    let direction = WireDirection::try_from(wire_direction).ok().map(|known| match known {
        WireDirection::Forwards => Direction::Forwards,
        WireDirection::Backwards => Direction::Backwards,
    });
    match (source, extent, filter_option, direction) {
        (
            Some(Source::Stream(stream)),
            Some(Extent::Count(count)),
            Some(FilterOption::NoFilter(_)),
            Some(direction),
        ) => read_stream(context, stream, direction, Remaining { count, reader }).await,
        (Some(Source::All(all)), Some(Extent::Count(count)), Some(filter), Some(direction)) => {
            let filter = match filter {
                FilterOption::Filter(options) => Some(compile_filter(&options)?),
                FilterOption::NoFilter(_) => None,
            };
            read_all(context, all, direction, filter, Remaining { count, reader })
        }
        (
            Some(Source::Stream(stream)),
            Some(Extent::Subscription(_)),
            Some(FilterOption::NoFilter(_)),
            Some(Direction::Forwards),
        ) => {
            let name = parse_stream_name(stream.stream_identifier)?;
            let start = parse_start(stream.revision_option)?;
            subscribe::subscribe_to_stream(context, name, start, reader).await
        }
        (
            Some(Source::All(all)),
            Some(Extent::Subscription(_)),
            Some(filter),
            Some(Direction::Forwards),
        ) => {
            let start = parse_start(all.position_option)?;
            let (filter, checkpoints) = match filter {
                FilterOption::NoFilter(_) => (None, None),
                FilterOption::Filter(options) => {
                    (Some(compile_filter(&options)?), Some(checkpoint_interval(&options)?))
                }
            };
            Ok(subscribe::subscribe_to_all(context, start, filter, checkpoints, reader))
        }
        (source, extent, filter, _) => Err(invalid_combination(
            source.as_ref(),
            extent.as_ref(),
            filter.as_ref(),
            wire_direction,
        )),
    }
}

/// Checks the right to read the source of a read or a subscription.
async fn authorize_source(
    context: &Context,
    caller: &Caller,
    source: Option<&Source>,
) -> Result<(), Status> {
    match source {
        Some(Source::All(_)) => context.authorize(caller, ALL_STREAM, StreamAction::Read).await,
        Some(Source::Stream(stream)) if !matches!(caller, Caller::Unrestricted) => {
            let name = parse_stream_name(stream.stream_identifier.clone())?;
            context.authorize(caller, &name, StreamAction::Read).await
        }
        Some(Source::Stream(_)) | None => Ok(()),
    }
}

fn invalid_combination(
    source: Option<&Source>,
    extent: Option<&Extent>,
    filter: Option<&FilterOption>,
    direction: i32,
) -> Status {
    let source = match source {
        Some(Source::Stream(_)) => "Stream",
        Some(Source::All(_)) => "All",
        None => "None",
    };
    let extent = match extent {
        Some(Extent::Count(_)) => "Count",
        Some(Extent::Subscription(_)) => "Subscription",
        None => "None",
    };
    let filter = match filter {
        Some(FilterOption::Filter(_)) => "Filter",
        Some(FilterOption::NoFilter(_)) => "NoFilter",
        None => "None",
    };
    let direction = match WireDirection::try_from(direction) {
        Ok(direction) => format!("{direction:?}"),
        Err(_) => direction.to_string(),
    };
    Status::invalid_argument(format!(
        "The combination of ({source}, {extent}, {direction}, {filter}) is invalid."
    ))
}

fn compile_filter(options: &FilterOptions) -> Result<Arc<Filter>, Status> {
    Ok(Arc::new(Filter::new(&parse_filter(options)?)?))
}

fn checkpoint_interval(options: &FilterOptions) -> Result<CheckpointInterval, Status> {
    let window = match options.window {
        Some(Window::Max(window)) => window,
        Some(Window::Count(_)) | None => DEFAULT_WINDOW_EVENTS,
    };
    let interval = u64::from(window) * u64::from(options.checkpoint_interval_multiplier);
    CheckpointInterval::new(interval).ok_or_else(handler_threw)
}

/// Parses where a read starts. Fails if that is missing.
fn parse_start(
    option: Option<impl TryInto<StartFrom, Error = Status>>,
) -> Result<StartFrom, Status> {
    option.ok_or_else(handler_threw)?.try_into()
}

async fn read_stream(
    context: &Arc<Context>,
    stream: Stream,
    direction: Direction,
    wanted: Remaining,
) -> Result<ResponseStream<ReadResp>, Status> {
    let name = parse_stream_name(stream.stream_identifier)?;
    let from = match parse_start(stream.revision_option)? {
        StartFrom::Beginning => 0,
        StartFrom::At(revision) => revision,
        StartFrom::End => u64::MAX,
    };
    let query = StreamQuery {
        stream: name,
        direction,
        from,
        limit: page_limit(wanted.count),
        now_ticks: context.log.now_ticks(),
    };
    // A tombstoned stream fails the call itself. So the first page is read before the response
    // begins.
    let first = context.log.read_stream(query.clone()).await?;
    if matches!(first, StreamRead::Deleted) {
        return Err(stream_deleted(&query.stream));
    }
    let (sink, responses) = response_channel(context.stop.clone());
    let task = Arc::clone(context);
    context.tasks.spawn(async move {
        let result = send_stream(&task, &sink, query, first, wanted).await;
        sink.end_with(result).await;
    });
    Ok(responses)
}

/// Number of the events that are still to be sent, and their reader.
struct Remaining {
    count: u64,
    reader: Reader,
}

async fn send_stream(
    context: &Context,
    sink: &ResponseSink<ReadResp>,
    mut query: StreamQuery,
    first: StreamRead,
    mut remaining: Remaining,
) -> Result<(), StreamEnd> {
    let mut read = first;
    let mut skipped = None;
    if let StreamRead::Page(page) = &read
        && remaining.reader.reports_positions
    {
        skipped = SkippedRevisions::for_read(&query, page, remaining.count);
    }
    loop {
        let page = match read {
            StreamRead::Page(page) => page,
            StreamRead::Deleted => return Err(stream_deleted(&query.stream).into()),
            StreamRead::Missing => {
                let stream_identifier = Some(stream_identifier(&query.stream));
                let missing = Content::StreamNotFound(StreamNotFound { stream_identifier });
                return sink.send(missing.into()).await;
            }
        };
        let first = page.events.first().map(|event| event.revision);
        // Expired events may fill the first pages. Only the first visible event, or the end, tells
        // how many revisions were skipped.
        if (first.is_some() || page.next.is_none())
            && let Some(skipped) = skipped.take()
        {
            for position in skipped.reported_positions(first) {
                sink.send(Content::FirstStreamPosition(position).into()).await?;
            }
        }
        remaining.count = send_events(context, sink, page.events, &remaining).await?;
        match page.next.filter(|_| remaining.count > 0) {
            Some(next) => query.from = next,
            // Also when the count ended the read: EventStoreDB sends the last revision with every
            // complete read.
            None if remaining.reader.reports_positions => {
                return sink.send(Content::LastStreamPosition(page.last).into()).await;
            }
            None => return Ok(()),
        }
        query.limit = page_limit(remaining.count);
        read = context.log.read_stream(query.clone()).await?;
    }
}

/// Sends `events`, as many as remain. Returns the number that remains after them.
async fn send_events(
    context: &Context,
    sink: &ResponseSink<ReadResp>,
    mut events: Vec<Arc<crate::log::Event>>,
    remaining: &Remaining,
) -> Result<u64, StreamEnd> {
    events.truncate(usize::try_from(remaining.count).unwrap_or(usize::MAX));
    let (mut count, reader) = (remaining.count, &remaining.reader);
    let mut events = context.log.resolve_events(events, reader.resolve_links).await?;
    context.remove_unreadable_targets(&reader.caller, &mut events).await?;
    for resolved in events {
        count -= 1;
        let event = to_read_event(&resolved, reader.ids);
        sink.send(Content::Event(event).into()).await?;
    }
    Ok(count)
}

fn read_all(
    context: &Arc<Context>,
    all: All,
    direction: Direction,
    filter: Option<Arc<Filter>>,
    wanted: Remaining,
) -> Result<ResponseStream<ReadResp>, Status> {
    // The read ends at the head of this moment. Otherwise it would never end while writers are
    // faster.
    let head = context.log.head();
    let from = match (parse_start(all.position_option)?, direction) {
        (StartFrom::Beginning, _) => 0,
        // A forward read includes the event at its position. The log reads from after a position.
        (StartFrom::At(position), Direction::Forwards) => position.saturating_sub(1),
        (StartFrom::At(position), Direction::Backwards) => position,
        (StartFrom::End, Direction::Forwards) => head,
        (StartFrom::End, Direction::Backwards) => head.saturating_add(1),
    };
    let query = AllQuery { direction, from, until: head, limit: page_limit(wanted.count), filter };
    let (sink, responses) = response_channel(context.stop.clone());
    let task = Arc::clone(context);
    context.tasks.spawn(async move {
        let result = send_all(&task, &sink, query, wanted).await;
        sink.end_with(result).await;
    });
    Ok(responses)
}

async fn send_all(
    context: &Context,
    sink: &ResponseSink<ReadResp>,
    mut query: AllQuery,
    mut remaining: Remaining,
) -> Result<(), StreamEnd> {
    while remaining.count > 0 {
        let page = context.log.read_all(query.clone()).await?;
        remaining.count = send_events(context, sink, page.events, &remaining).await?;
        if page.at_end {
            break;
        }
        query.from = page.scanned_to;
        query.limit = page_limit(remaining.count);
    }
    Ok(())
}

fn page_limit(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).min(MAX_PAGE_EVENTS)
}
