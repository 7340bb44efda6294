//! Streams.Read: takes the request apart and reads what has an end; subscriptions are next door.

use std::sync::Arc;

use tonic::Status;

use crate::{
    log::{AllQuery, Direction, Filter, MAX_PAGE_EVENTS, StreamQuery, StreamRead},
    rpc::{
        Context,
        convert::{IdStyle, Place, filter, identifier, read_event, stream_name},
        responses::{End, Responses, Sink, channel},
        skipped::Skipped,
        status::{handler_threw, stream_deleted},
        subscribe::{self, Checkpoints},
    },
    wire::event_store::client::{
        Empty, FilterOptions,
        filter_options::Window,
        streams::{
            ReadOptions, ReadReq, ReadResp,
            read_options::{
                All, Direction as WireDirection, Extent, FilterOption, Source, Stream,
                all::PositionOption, stream::RevisionOption,
            },
            read_resp::{Content, StreamNotFound},
        },
    },
};

/// Events looked at between checkpoints when the caller leaves the window to the server.
const DEFAULT_WINDOW_EVENTS: u32 = 32;

/// What kind of messages a response is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub ids: IdStyle,
    pub resolve_links: bool,
    /// Whether the caller understands messages about first and last revisions.
    pub tells_positions: bool,
}

pub(crate) async fn read(
    context: &Arc<Context>,
    request: ReadReq,
) -> Result<Responses<ReadResp>, Status> {
    let options = request.options.ok_or_else(handler_threw)?;
    let ids = IdStyle::of(options.uuid_option.as_ref())
        .ok_or_else(|| Status::invalid_argument("The uuid option is missing."))?;
    let format = Format {
        ids,
        resolve_links: options.resolve_links,
        tells_positions: options.control_option.is_some_and(|it| it.compatibility >= 1),
    };
    let wire_direction = options.read_direction;
    let ReadOptions { source, extent, filter_option, .. } = options;
    let direction = match WireDirection::try_from(wire_direction) {
        Ok(WireDirection::Forwards) => Direction::Forwards,
        Ok(WireDirection::Backwards) => Direction::Backwards,
        Err(_) => {
            let (source, extent) = (source.as_ref(), extent.as_ref());
            return Err(invalid_combination(
                source,
                extent,
                filter_option.as_ref(),
                wire_direction,
            ));
        }
    };
    match (source, extent, filter_option, direction) {
        (
            Some(Source::Stream(it)),
            Some(Extent::Count(count)),
            Some(FilterOption::NoFilter(_)),
            _,
        ) => stream_read(context, it, direction, Remaining { count, format }).await,
        (Some(Source::All(it)), Some(Extent::Count(count)), Some(filter), _) => {
            let filter = match filter {
                FilterOption::Filter(options) => Some(compile(&options)?),
                FilterOption::NoFilter(_) => None,
            };
            all_read(context, &it, direction, filter, Remaining { count, format })
        }
        (
            Some(Source::Stream(it)),
            Some(Extent::Subscription(_)),
            Some(FilterOption::NoFilter(_)),
            Direction::Forwards,
        ) => {
            let name = stream_name(it.stream_identifier)?;
            let start = revision_of(it.revision_option.as_ref())?;
            subscribe::to_stream(context, name, start, format).await
        }
        (
            Some(Source::All(it)),
            Some(Extent::Subscription(_)),
            Some(filter),
            Direction::Forwards,
        ) => {
            let start = position_of(&it)?;
            let (filter, checkpoints) = match filter {
                FilterOption::NoFilter(_) => (None, None),
                FilterOption::Filter(options) => {
                    (Some(compile(&options)?), Some(checkpoints(&options)?))
                }
            };
            Ok(subscribe::to_all(context, start, filter, checkpoints, format))
        }
        (source, extent, filter, _) => {
            let (source, extent, filter) = (source.as_ref(), extent.as_ref(), filter.as_ref());
            Err(invalid_combination(source, extent, filter, wire_direction))
        }
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

fn compile(options: &FilterOptions) -> Result<Arc<Filter>, Status> {
    Ok(Arc::new(Filter::new(&filter(options)?)?))
}

fn checkpoints(options: &FilterOptions) -> Result<Checkpoints, Status> {
    let window = match options.window {
        Some(Window::Max(window)) => window,
        Some(Window::Count(_)) | None => DEFAULT_WINDOW_EVENTS,
    };
    let interval = u64::from(window) * u64::from(options.checkpoint_interval_multiplier);
    Checkpoints::every(interval).ok_or_else(handler_threw)
}

/// Where a read of a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Beginning,
    At(u64),
    End,
}

impl From<Place> for Start {
    fn from(place: Place) -> Self {
        match place {
            Place::At(place) => Self::At(place),
            Place::End => Self::End,
        }
    }
}

fn revision_of(option: Option<&RevisionOption>) -> Result<Start, Status> {
    Ok(match option {
        Some(RevisionOption::Revision(revision)) => Place::revision(*revision)?.into(),
        Some(RevisionOption::Start(_)) => Start::Beginning,
        Some(RevisionOption::End(_)) => Start::End,
        None => return Err(handler_threw()),
    })
}

fn position_of(all: &All) -> Result<Start, Status> {
    Ok(match &all.position_option {
        Some(PositionOption::Position(position)) => Place::position(position)?.into(),
        Some(PositionOption::Start(_)) => Start::Beginning,
        Some(PositionOption::End(_)) => Start::End,
        None => return Err(handler_threw()),
    })
}

async fn stream_read(
    context: &Arc<Context>,
    stream: Stream,
    direction: Direction,
    wanted: Remaining,
) -> Result<Responses<ReadResp>, Status> {
    let name = stream_name(stream.stream_identifier)?;
    let from = match revision_of(stream.revision_option.as_ref())? {
        Start::Beginning => 0,
        Start::At(revision) => revision,
        Start::End => u64::MAX,
    };
    let query = StreamQuery {
        stream: name,
        direction,
        from,
        limit: page_limit(wanted.count),
        now_ticks: context.log.now_ticks(),
    };
    // A deleted stream is an error of the call, so it has to be known before there is a response.
    let first = context.log.read_stream(query.clone()).await?;
    if matches!(first, StreamRead::Deleted) {
        return Err(stream_deleted(&query.stream));
    }
    let (sink, responses) = channel(context.stop.clone());
    let task = Arc::clone(context);
    context.tasks.spawn(async move {
        let result = send_stream(&task, &sink, query, first, wanted).await;
        sink.end(result).await;
    });
    Ok(responses)
}

/// What is still to be sent, and how.
#[derive(Clone, Copy)]
struct Remaining {
    count: u64,
    format: Format,
}

async fn send_stream(
    context: &Context,
    sink: &Sink<ReadResp>,
    mut query: StreamQuery,
    first: StreamRead,
    mut remaining: Remaining,
) -> Result<(), End> {
    let mut read = first;
    let mut skipped = None;
    if let StreamRead::Page(page) = &read
        && remaining.format.tells_positions
    {
        skipped = Skipped::by(&query, page, remaining.count);
    }
    loop {
        let page = match read {
            StreamRead::Page(page) => page,
            StreamRead::Deleted => return Err(stream_deleted(&query.stream).into()),
            StreamRead::Missing => {
                let stream_identifier = Some(identifier(&query.stream));
                let missing = Content::StreamNotFound(StreamNotFound { stream_identifier });
                return sink.send(response(missing)).await;
            }
        };
        let first = page.events.first().map(|event| event.revision);
        // Only now is it known how far the events are that are too old.
        if (first.is_some() || page.next.is_none())
            && let Some(skipped) = skipped.take()
        {
            for position in skipped.told(first) {
                sink.send(response(Content::FirstStreamPosition(position))).await?;
            }
        }
        remaining.count = send_events(context, sink, page.events, remaining).await?;
        match page.next.filter(|_| remaining.count > 0) {
            Some(next) => query.from = next,
            None if remaining.format.tells_positions => {
                return sink.send(response(Content::LastStreamPosition(page.last))).await;
            }
            None => return Ok(()),
        }
        query.limit = page_limit(remaining.count);
        read = context.log.read_stream(query.clone()).await?;
    }
}

/// Sends what is still wanted of `events`. Answers how many may follow.
async fn send_events(
    context: &Context,
    sink: &Sink<ReadResp>,
    mut events: Vec<Arc<crate::log::Event>>,
    remaining: Remaining,
) -> Result<u64, End> {
    events.truncate(usize::try_from(remaining.count).unwrap_or(usize::MAX));
    let mut count = remaining.count;
    for resolved in context.resolve(events, remaining.format).await? {
        count -= 1;
        let event = read_event(&resolved, remaining.format.ids);
        sink.send(response(Content::Event(event))).await?;
    }
    Ok(count)
}

fn all_read(
    context: &Arc<Context>,
    all: &All,
    direction: Direction,
    filter: Option<Arc<Filter>>,
    wanted: Remaining,
) -> Result<Responses<ReadResp>, Status> {
    let head = context.log.head();
    let from = match (position_of(all)?, direction) {
        (Start::Beginning, _) => 0,
        // Forwards from a position includes its event; the log reads from behind a position.
        (Start::At(position), Direction::Forwards) => position.saturating_sub(1),
        (Start::At(position), Direction::Backwards) => position,
        (Start::End, Direction::Forwards) => head,
        (Start::End, Direction::Backwards) => head.saturating_add(1),
    };
    let query = AllQuery { direction, from, until: head, limit: page_limit(wanted.count), filter };
    let (sink, responses) = channel(context.stop.clone());
    let task = Arc::clone(context);
    context.tasks.spawn(async move {
        let result = send_all(&task, &sink, query, wanted).await;
        sink.end(result).await;
    });
    Ok(responses)
}

async fn send_all(
    context: &Context,
    sink: &Sink<ReadResp>,
    mut query: AllQuery,
    mut remaining: Remaining,
) -> Result<(), End> {
    while remaining.count > 0 {
        let page = context.log.read_all(query.clone()).await?;
        remaining.count = send_events(context, sink, page.events, remaining).await?;
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

pub(crate) fn response(content: Content) -> ReadResp {
    ReadResp { content: Some(content) }
}

pub(crate) fn caught_up() -> ReadResp {
    response(Content::CaughtUp(Empty {}))
}
