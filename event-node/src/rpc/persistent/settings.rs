//! Reads a group's settings from the requests that create and update it.

use tonic::Status;

use crate::{
    log::{FilterSpec, GroupKey},
    persistent::{ALL, Settings, StartFrom, Strategy},
    rpc::{
        Context,
        convert::{self, Place},
        persistent::{SourceName, group_key},
        status::{group_failed, handler_threw},
    },
    wire::event_store::client::{
        StreamIdentifier,
        persistent_subscriptions::{
            self as wire, AllOptions, StreamOptions, all_options, settings as settings_wire,
            stream_options,
        },
    },
};

/// How much of an unknown strategy's name an error repeats.
const MAX_STRATEGY_CHARS: usize = 100;

/// Why a group cannot be asked to read the stream `$all`, as the original says it.
const ALL_AS_STREAM: &str =
    "Persistent subscriptions to $all are only supported over gRPC through gRPC clients";

/// Why a group cannot begin behind the last event, as the original says it.
const START_BEYOND_END: &str = "Invalid Start From position: commit position must be less than \
     or equal to the last commit position in the transaction file.";

/// 100 ns ticks in a millisecond.
const TICKS_PER_MS: i64 = 10_000;

/// What both requests are made of.
pub(crate) struct Parts {
    pub stream_identifier: Option<StreamIdentifier>,
    pub group_name: String,
    pub settings: Option<wire::Settings>,
    pub source: Option<Source>,
}

/// The group's source as requests have named it since servers can read `$all`.
pub(crate) enum Source {
    Stream(StreamOptions),
    All(AllOptions),
}

/// A request, read as far as that needs no group.
pub(crate) struct Requested {
    pub key: GroupKey,
    wire: wire::Settings,
    start: StartFrom,
    filter: Option<FilterSpec>,
}

pub(crate) fn read(parts: Parts) -> Result<Requested, Status> {
    let wire = parts.settings.ok_or_else(handler_threw)?;
    let (source, start, filter) = match parts.source {
        // Before `$all` could be read, the stream was named outside, and its start in the settings.
        None => (SourceName::Stream(parts.stream_identifier), start_at(wire.revision)?, None),
        Some(Source::Stream(options)) => {
            let start = stream_start(&options)?;
            (SourceName::Stream(options.stream_identifier), start, None)
        }
        Some(Source::All(options)) => {
            (SourceName::All, all_start(&options)?, all_filter(&options)?)
        }
    };
    let is_over_all = matches!(source, SourceName::All);
    if let SourceName::Stream(Some(identifier)) = &source
        && identifier.stream_name.is_empty()
    {
        convert::group_name_within_limits(&parts.group_name)?;
        let key = GroupKey { stream: String::new(), name: parts.group_name };
        return Err(group_failed(&key, "Bad stream name."));
    }
    let key = group_key(source, parts.group_name)?;
    if key.stream == ALL && !is_over_all {
        return Err(group_failed(&key, ALL_AS_STREAM));
    }
    Ok(Requested { key, wire, start, filter })
}

impl Requested {
    /// The settings, checked as far as that needs no group.
    pub(crate) fn settings(self, context: &Context) -> Result<Settings, Status> {
        let Self { key, wire, start, filter } = self;
        let strategy = strategy(&wire).map_err(|unknown| {
            group_failed(&key, &format!("Consumer strategy {unknown} does not exist."))
        })?;
        if let StartFrom::At(position) = start
            && key.stream == ALL
            && position > context.log.head()
        {
            return Err(group_failed(&key, START_BEYOND_END));
        }
        Ok(settings(&wire, start, filter, strategy))
    }
}

fn settings(
    wire: &wire::Settings,
    start: StartFrom,
    filter: Option<FilterSpec>,
    strategy: Strategy,
) -> Settings {
    use settings_wire::{CheckpointAfter, MessageTimeout};
    Settings {
        filter,
        start,
        strategy,
        resolve_links: wire.resolve_links,
        extra_statistics: wire.extra_statistics,
        message_timeout_ms: match wire.message_timeout {
            Some(MessageTimeout::MessageTimeoutMs(millis)) => millis,
            Some(MessageTimeout::MessageTimeoutTicks(ticks)) => in_ms(ticks),
            None => 0,
        },
        checkpoint_after_ms: match wire.checkpoint_after {
            Some(CheckpointAfter::CheckpointAfterMs(millis)) => millis,
            Some(CheckpointAfter::CheckpointAfterTicks(ticks)) => in_ms(ticks),
            None => 0,
        },
        max_retry_count: wire.max_retry_count,
        min_checkpoint_count: wire.min_checkpoint_count,
        max_checkpoint_count: wire.max_checkpoint_count,
        max_subscriber_count: wire.max_subscriber_count,
        live_buffer_size: wire.live_buffer_size,
        read_batch_size: wire.read_batch_size,
        history_buffer_size: wire.history_buffer_size,
    }
}

fn in_ms(ticks: i64) -> i32 {
    i32::try_from(ticks / TICKS_PER_MS).unwrap_or(i32::MAX)
}

/// The strategy, or what names it if there is none of that name.
fn strategy(settings: &wire::Settings) -> Result<Strategy, String> {
    let name = &settings.consumer_strategy;
    if !name.is_empty() {
        // The name goes into a trailer, whose size clients bound.
        let shortened = || name.chars().take(MAX_STRATEGY_CHARS).collect();
        return Strategy::named(name).ok_or_else(shortened);
    }
    let number = settings.named_consumer_strategy;
    let known = wire::ConsumerStrategy::try_from(number).map_err(|_| number.to_string())?;
    Ok(match known {
        wire::ConsumerStrategy::DispatchToSingle => Strategy::DispatchToSingle,
        wire::ConsumerStrategy::RoundRobin => Strategy::RoundRobin,
        wire::ConsumerStrategy::Pinned => Strategy::Pinned,
    })
}

fn no_start() -> Status {
    Status::invalid_argument(
        "Where the group starts is missing: give the start, the end or a place between them.",
    )
}

fn stream_start(options: &StreamOptions) -> Result<StartFrom, Status> {
    use stream_options::RevisionOption;
    match options.revision_option {
        Some(RevisionOption::Revision(revision)) => start_at(revision),
        Some(RevisionOption::Start(_)) => Ok(StartFrom::Beginning),
        Some(RevisionOption::End(_)) => Ok(StartFrom::End),
        None => Err(no_start()),
    }
}

fn all_start(options: &AllOptions) -> Result<StartFrom, Status> {
    use all_options::PositionOption;
    match &options.position_option {
        Some(PositionOption::Position(position)) => Ok(match Place::position(position)? {
            Place::At(position) => StartFrom::At(position),
            Place::End => StartFrom::End,
        }),
        Some(PositionOption::Start(_)) => Ok(StartFrom::Beginning),
        Some(PositionOption::End(_)) => Ok(StartFrom::End),
        None => Err(no_start()),
    }
}

fn start_at(revision: u64) -> Result<StartFrom, Status> {
    Ok(match Place::revision(revision)? {
        Place::At(revision) => StartFrom::At(revision),
        Place::End => StartFrom::End,
    })
}

fn all_filter(options: &AllOptions) -> Result<Option<FilterSpec>, Status> {
    use all_options::FilterOption;
    match &options.filter_option {
        Some(FilterOption::Filter(filter)) => convert::filter(filter).map(Some),
        Some(FilterOption::NoFilter(_)) | None => Ok(None),
    }
}
