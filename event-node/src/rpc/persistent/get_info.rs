//! PersistentSubscriptions.GetInfo and List.

use tonic::Status;

use crate::{
    access::Caller,
    log::GroupKey,
    persistent::{ALL_STREAM, ConsumerInfo, GroupInfo, GroupSettings},
    rpc::{
        Context,
        authorization::authorize_user,
        convert::parse_stream_name,
        persistent::{parse_group_key, status_for},
        status::handler_threw,
    },
    wire::event_store::client::persistent_subscriptions::{
        GetInfoReq, GetInfoResp, ListReq, ListResp, SubscriptionInfo,
        list_req::{options::ListOption, stream_option},
        subscription_info::{Connection, Measurement},
    },
};

pub(crate) async fn handle_get_info(
    context: &Context,
    caller: &Caller,
    request: GetInfoReq,
) -> Result<GetInfoResp, Status> {
    authorize_user(caller)?;
    let options = request.options.ok_or_else(handler_threw)?;
    let key = parse_group_key(options.source, options.group_name)?;
    let group = context.groups.find_group(&key).await.map_err(status_for(&key))?;
    let info = group.read_info().await.map_err(status_for(&key))?;
    Ok(GetInfoResp { subscription_info: Some(to_subscription_info(info)) })
}

pub(crate) async fn handle_list(
    context: &Context,
    caller: &Caller,
    request: ListReq,
) -> Result<ListResp, Status> {
    authorize_user(caller)?;
    let options = request.options.ok_or_else(handler_threw)?;
    let stream = match options.list_option.ok_or_else(handler_threw)? {
        ListOption::ListAllSubscriptions(_) => None,
        ListOption::ListForStream(option) => Some(match option.source {
            Some(stream_option::Source::Stream(stream)) => parse_stream_name(Some(stream))?,
            Some(stream_option::Source::All(_)) => ALL_STREAM.to_owned(),
            None => return Err(handler_threw()),
        }),
    };
    let groups = context.groups.list_groups(stream.as_deref()).await;
    let key = GroupKey { stream: stream.unwrap_or_default(), name: String::new() };
    let groups = groups.map_err(status_for(&key))?;
    let mut subscriptions = Vec::new();
    for group in groups {
        // The read fails for a group that was deleted meanwhile. The list leaves it out.
        if let Ok(info) = group.read_info().await {
            subscriptions.push(to_subscription_info(info));
        }
    }
    Ok(ListResp { subscriptions })
}

fn to_subscription_info(info: GroupInfo) -> SubscriptionInfo {
    let format_position = |position: Option<u64>| {
        position.map_or_else(String::new, |position| {
            GroupSettings::format_position(&info.key, i64::try_from(position).unwrap_or(i64::MAX))
        })
    };
    let (settings, counters) = (&info.settings, &info.counters);
    SubscriptionInfo {
        status: format_status(&info),
        last_checkpointed_event_position: format_position(counters.last_checkpoint),
        last_known_event_position: format_position(counters.last_known),
        start_from: settings.format_start(&info.key),
        resolve_link_tos: settings.resolve_links,
        message_timeout_milliseconds: settings.message_timeout_ms,
        extra_statistics: settings.extra_statistics,
        max_retry_count: settings.max_retry_count,
        live_buffer_size: settings.live_buffer_size,
        buffer_size: settings.history_buffer_size,
        read_batch_size: settings.read_batch_size,
        check_point_after_milliseconds: settings.checkpoint_after_ms,
        min_check_point_count: settings.min_checkpoint_count,
        max_check_point_count: settings.max_checkpoint_count,
        named_consumer_strategy: settings.strategy.name().to_owned(),
        max_subscriber_count: settings.max_subscriber_count,
        average_per_second: to_i32(counters.pushed.per_second),
        total_items: to_i64(counters.pushed.total),
        count_since_last_measurement: to_i64(counters.pushed.since_last),
        read_buffer_count: to_i32(counters.n_buffered as u64),
        live_buffer_count: to_i64(counters.n_live_buffered as u64),
        retry_buffer_count: to_i32(counters.n_retrying as u64),
        total_in_flight_messages: to_i32(counters.n_in_flight as u64),
        outstanding_messages_count: to_i32(counters.n_outstanding as u64),
        parked_message_count: to_i64(info.n_parked),
        connections: to_connections(&info),
        event_source: info.key.stream,
        group_name: info.key.name,
    }
}

fn to_connections(info: &GroupInfo) -> Vec<Connection> {
    let describe = |consumer: &ConsumerInfo| Connection {
        from: String::new(),
        username: consumer.user_name.clone(),
        average_items_per_second: to_i32(consumer.sent.per_second),
        total_items: to_i64(consumer.sent.total),
        count_since_last_measurement: to_i64(consumer.sent.since_last),
        observed_measurements: consumer
            .latencies
            .iter()
            .map(|(key, value)| Measurement { key: (*key).to_owned(), value: to_i64(*value) })
            .collect(),
        available_slots: to_i32(consumer.n_free_slots as u64),
        in_flight_messages: to_i32(consumer.n_in_flight as u64),
        connection_name: consumer.connection_name.clone(),
    };
    info.counters.consumers.iter().map(describe).collect()
}

fn format_status(info: &GroupInfo) -> String {
    let is_live = info.counters.is_live;
    let flags = [
        (!is_live, "Behind"),
        (info.is_reading && !is_live, "OutstandingPageRequest"),
        (info.counters.is_replaying, "ReplayingParkedMessages"),
        (is_live, "Live"),
    ];
    let set: Vec<&str> = flags.iter().filter(|flag| flag.0).map(|flag| flag.1).collect();
    set.join(", ")
}

fn to_i32(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
