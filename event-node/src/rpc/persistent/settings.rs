//! Parses the settings of a group from requests that create or update it.

use tonic::Status;

use crate::{
    log::{FilterSpec, GroupKey},
    persistent::{ALL_STREAM, ConsumerStrategy, GroupSettings, StartFrom},
    rpc::{
        Context,
        convert::{check_group_name, parse_filter, parse_revision},
        persistent::{RequestedSource, parse_group_key},
        status::{group_failed, handler_threw},
    },
    wire::event_store::client::{
        StreamIdentifier,
        persistent_subscriptions::{
            self as wire, AllOptions, StreamOptions, all_options, settings as settings_wire,
        },
    },
};

/// Maximum number of characters of an unknown strategy's name in an error.
const MAX_STRATEGY_CHARS: usize = 100;

/// EventStoreDB's reason why the stream `$all` cannot be a group's source.
const ALL_AS_STREAM: &str =
    "Persistent subscriptions to $all are only supported over gRPC through gRPC clients";

/// EventStoreDB's reason why a group cannot start behind the last event.
const START_BEYOND_END: &str = "Invalid Start From position: commit position must be less than \
     or equal to the last commit position in the transaction file.";

/// Number of 100 ns ticks in a millisecond.
const TICKS_PER_MS: i64 = 10_000;

/// The common parts of both requests.
pub(crate) struct GroupRequestParts {
    pub stream_identifier: Option<StreamIdentifier>,
    pub group_name: String,
    pub settings: Option<wire::Settings>,
    pub source: Option<StreamOrAll>,
}

/// The source of a group, as requests name it since groups can read `$all`.
pub(crate) enum StreamOrAll {
    Stream(StreamOptions),
    All(AllOptions),
}

/// A parsed request. The settings are not validated yet.
pub(crate) struct GroupRequest {
    pub key: GroupKey,
    wire: wire::Settings,
    start: StartFrom,
    filter: Option<FilterSpec>,
}

pub(crate) fn parse_group_request(parts: GroupRequestParts) -> Result<GroupRequest, Status> {
    let wire = parts.settings.ok_or_else(handler_threw)?;
    let (source, start, filter) = match parts.source {
        // Older clients name the stream outside the source, and its start in the settings.
        None => (
            RequestedSource::Stream(parts.stream_identifier),
            parse_revision(wire.revision)?.into(),
            None,
        ),
        Some(StreamOrAll::Stream(options)) => {
            let start = options.revision_option.ok_or_else(missing_start)?.try_into()?;
            (RequestedSource::Stream(options.stream_identifier), start, None)
        }
        Some(StreamOrAll::All(options)) => {
            let start = options.position_option.ok_or_else(missing_start)?.try_into()?;
            (RequestedSource::All, start, parse_all_filter(&options)?)
        }
    };
    let is_over_all = matches!(source, RequestedSource::All);
    if let RequestedSource::Stream(Some(identifier)) = &source
        && identifier.stream_name.is_empty()
    {
        check_group_name(&parts.group_name)?;
        let key = GroupKey { stream: String::new(), name: parts.group_name };
        return Err(group_failed(&key, "Bad stream name."));
    }
    let key = parse_group_key(Some(source), parts.group_name)?;
    if key.stream == ALL_STREAM && !is_over_all {
        return Err(group_failed(&key, ALL_AS_STREAM));
    }
    Ok(GroupRequest { key, wire, start, filter })
}

impl GroupRequest {
    /// Returns the settings. Fails if the strategy does not exist or the start is beyond the end of
    /// `$all`.
    pub(crate) fn into_settings(self, context: &Context) -> Result<GroupSettings, Status> {
        let Self { key, wire, start, filter } = self;
        let strategy = parse_strategy(&wire).map_err(|unknown| {
            group_failed(&key, &format!("Consumer strategy {unknown} does not exist."))
        })?;
        if let StartFrom::At(position) = start
            && key.stream == ALL_STREAM
            && position > context.log.head()
        {
            return Err(group_failed(&key, START_BEYOND_END));
        }
        Ok(to_group_settings(&wire, start, filter, strategy))
    }
}

fn to_group_settings(
    wire: &wire::Settings,
    start: StartFrom,
    filter: Option<FilterSpec>,
    strategy: ConsumerStrategy,
) -> GroupSettings {
    use settings_wire::{CheckpointAfter, MessageTimeout};
    GroupSettings {
        filter,
        start,
        strategy,
        resolve_links: wire.resolve_links,
        extra_statistics: wire.extra_statistics,
        message_timeout_ms: match wire.message_timeout {
            Some(MessageTimeout::MessageTimeoutMs(millis)) => millis,
            Some(MessageTimeout::MessageTimeoutTicks(ticks)) => ticks_to_ms(ticks),
            None => 0,
        },
        checkpoint_after_ms: match wire.checkpoint_after {
            Some(CheckpointAfter::CheckpointAfterMs(millis)) => millis,
            Some(CheckpointAfter::CheckpointAfterTicks(ticks)) => ticks_to_ms(ticks),
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

fn ticks_to_ms(ticks: i64) -> i32 {
    i32::try_from(ticks / TICKS_PER_MS).unwrap_or(i32::MAX)
}

/// Parses the strategy. Fails with its name or number if the strategy does not exist.
fn parse_strategy(settings: &wire::Settings) -> Result<ConsumerStrategy, String> {
    let name = &settings.consumer_strategy;
    if !name.is_empty() {
        // A trailer carries the name, and clients limit the size of trailers.
        let shortened = || name.chars().take(MAX_STRATEGY_CHARS).collect();
        return ConsumerStrategy::from_name(name).ok_or_else(shortened);
    }
    let number = settings.named_consumer_strategy;
    let known = wire::ConsumerStrategy::try_from(number).map_err(|_| number.to_string())?;
    Ok(match known {
        wire::ConsumerStrategy::DispatchToSingle => ConsumerStrategy::DispatchToSingle,
        wire::ConsumerStrategy::RoundRobin => ConsumerStrategy::RoundRobin,
        wire::ConsumerStrategy::Pinned => ConsumerStrategy::Pinned,
    })
}

fn missing_start() -> Status {
    Status::invalid_argument(
        "Where the group starts is missing: give the start, the end or a place between them.",
    )
}

fn parse_all_filter(options: &AllOptions) -> Result<Option<FilterSpec>, Status> {
    use all_options::FilterOption;
    match &options.filter_option {
        Some(FilterOption::Filter(filter)) => parse_filter(filter).map(Some),
        Some(FilterOption::NoFilter(_)) | None => Ok(None),
    }
}
