//! Metrics of the node, under the names of EventStoreDB where the fact is the same.
//!
//! Totals are gauges: EventStoreDB's names lack the suffix `_total`, which tools expect of counters.

use std::{sync::LazyLock, time::Duration};

use metrics::{Gauge, Histogram, Unit, describe_gauge, describe_histogram, gauge, histogram};
use service_kit::metrics::to_gauge;

const CONNECTIONS: &str = "eventstore_persistent_sub_connections";
const PARKED: &str = "eventstore_persistent_sub_parked_messages";
const IN_FLIGHT: &str = "eventstore_persistent_sub_in_flight_messages";
const OLDEST_PARKED: &str = "eventstore_persistent_sub_oldest_parked_message_seconds";
const PROCESSED: &str = "eventstore_persistent_sub_items_processed";
const KNOWN_POSITION: &str = "eventstore_persistent_sub_last_known_event_commit_position";
const KNOWN_NUMBER: &str = "eventstore_persistent_sub_last_known_event_number";
const DONE_POSITION: &str = "eventstore_persistent_sub_checkpointed_event_commit_position";
const DONE_NUMBER: &str = "eventstore_persistent_sub_checkpointed_event_number";
const IO_EVENTS: &str = "eventstore_io_events";
const IO_BYTES: &str = "eventstore_io_bytes";
const CURRENT_CALLS: &str = "eventstore_current_incoming_grpc_calls";
const CALLS: &str = "eventstore_incoming_grpc_calls";
const FLUSH_DURATION: &str = "eventstore_writer_flush_duration_seconds";
const CHECKPOINTS: &str = "eventstore_checkpoints";
const DISK_BYTES: &str = "eventstore_sys_disk_bytes";
const STORE_BYTES: &str = "eventstore_store_bytes";
const ACCEPTS_APPENDS: &str = "eventstore_accepts_appends";

struct Instruments {
    events_read: Gauge,
    events_written: Gauge,
    bytes_read: Gauge,
    bytes_written: Gauge,
    current_calls: Gauge,
    calls: Gauge,
    failed_calls: Gauge,
    unimplemented_calls: Gauge,
    late_calls: Gauge,
    flush_duration: Histogram,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let calls = |kind: &'static str| gauge!(CALLS, "kind" => kind);
    Instruments {
        events_read: gauge!(IO_EVENTS, "activity" => "read"),
        events_written: gauge!(IO_EVENTS, "activity" => "written"),
        bytes_read: gauge!(IO_BYTES, "activity" => "read"),
        bytes_written: gauge!(IO_BYTES, "activity" => "written"),
        current_calls: gauge!(CURRENT_CALLS),
        calls: calls("total"),
        failed_calls: calls("failed"),
        unimplemented_calls: calls("unimplemented"),
        late_calls: calls("deadline-exceeded"),
        flush_duration: histogram!(FLUSH_DURATION),
    }
});

/// Counts an event that is sent to a client.
pub(crate) fn count_read(n_bytes: usize) {
    INSTRUMENTS.events_read.increment(1.0);
    INSTRUMENTS.bytes_read.increment(to_gauge(n_bytes as u64));
}

/// Counts events that are durable.
pub(crate) fn count_written(n_events: usize, n_bytes: usize) {
    INSTRUMENTS.events_written.increment(to_gauge(n_events as u64));
    INSTRUMENTS.bytes_written.increment(to_gauge(n_bytes as u64));
}

pub(crate) fn record_flush(duration: Duration) {
    INSTRUMENTS.flush_duration.record(duration);
}

/// A call that has not ended. Dropping it ends the call.
pub(crate) struct CurrentCall(());

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFailure {
    Unimplemented,
    DeadlineExceeded,
    Other,
}

impl CurrentCall {
    pub(crate) fn begin() -> Self {
        INSTRUMENTS.calls.increment(1.0);
        INSTRUMENTS.current_calls.increment(1.0);
        Self(())
    }
}

impl Drop for CurrentCall {
    fn drop(&mut self) {
        INSTRUMENTS.current_calls.decrement(1.0);
    }
}

pub(crate) fn count_failed_call(failure: CallFailure) {
    INSTRUMENTS.failed_calls.increment(1.0);
    match failure {
        CallFailure::Unimplemented => INSTRUMENTS.unimplemented_calls.increment(1.0),
        CallFailure::DeadlineExceeded => INSTRUMENTS.late_calls.increment(1.0),
        CallFailure::Other => {}
    }
}

/// Sampled state of a group.
pub(crate) struct GroupSample<'a> {
    /// Name of the source stream.
    pub(crate) stream: &'a str,
    pub(crate) group: &'a str,
    /// Whether the source is `$all`. Positions in another stream are revisions.
    pub(crate) is_over_all: bool,
    pub(crate) n_connections: u64,
    pub(crate) n_parked: u64,
    pub(crate) n_in_flight: u64,
    pub(crate) oldest_parked: Duration,
    pub(crate) n_processed: u64,
    pub(crate) last_known: Option<u64>,
    pub(crate) last_checkpoint: Option<u64>,
}

pub(crate) fn set_group(sample: &GroupSample<'_>) {
    let set = |name, value: f64| {
        let (stream, group) = (sample.stream.to_owned(), sample.group.to_owned());
        let labels = [("event_stream_id", stream), ("group_name", group)];
        gauge!(name, &labels).set(value);
    };
    set(CONNECTIONS, to_gauge(sample.n_connections));
    set(PARKED, to_gauge(sample.n_parked));
    set(IN_FLIGHT, to_gauge(sample.n_in_flight));
    set(OLDEST_PARKED, sample.oldest_parked.as_secs_f64());
    set(PROCESSED, to_gauge(sample.n_processed));
    let (known, done) = if sample.is_over_all {
        (KNOWN_POSITION, DONE_POSITION)
    } else {
        (KNOWN_NUMBER, DONE_NUMBER)
    };
    for (name, position) in [(known, sample.last_known), (done, sample.last_checkpoint)] {
        if let Some(position) = position {
            set(name, to_gauge(position));
        }
    }
}

/// Sampled state of the store.
pub(crate) struct StoreSample<'a> {
    pub(crate) head: u64,
    pub(crate) accepts_appends: bool,
    /// Folder of the store.
    pub(crate) folder: &'a str,
    /// Used and total bytes of the file system; `None` if unknown.
    pub(crate) disk: Option<(u64, u64)>,
    /// Bytes of the store's files; `None` if unknown.
    pub(crate) files: Option<u64>,
}

pub(crate) fn set_store(sample: &StoreSample<'_>) {
    gauge!(CHECKPOINTS, "name" => "writer", "read" => "non-flushed").set(to_gauge(sample.head));
    gauge!(ACCEPTS_APPENDS).set(f64::from(sample.accepts_appends));
    if let Some((used, total)) = sample.disk {
        for (kind, n_bytes) in [("used", used), ("total", total)] {
            gauge!(DISK_BYTES, "disk" => sample.folder.to_owned(), "kind" => kind)
                .set(to_gauge(n_bytes));
        }
    }
    if let Some(files) = sample.files {
        gauge!(STORE_BYTES).set(to_gauge(files));
    }
}

/// Describes the metrics, and makes those visible that are counted.
pub(crate) fn describe() {
    describe_gauge!(CONNECTIONS, Unit::Count, "Consumers of the group");
    describe_gauge!(PARKED, Unit::Count, "Parked messages of the group");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Messages delivered and not answered");
    describe_gauge!(OLDEST_PARKED, Unit::Seconds, "Age of the oldest parked message");
    describe_gauge!(PROCESSED, Unit::Count, "Messages delivered since the group started");
    describe_gauge!(KNOWN_POSITION, "Position of the last event that the group knows");
    describe_gauge!(KNOWN_NUMBER, "Revision of the last event that the group knows");
    describe_gauge!(DONE_POSITION, "Position up to which the group has handled all events");
    describe_gauge!(DONE_NUMBER, "Revision up to which the group has handled all events");
    describe_gauge!(IO_EVENTS, Unit::Count, "Events sent to clients, and events written");
    describe_gauge!(IO_BYTES, Unit::Bytes, "Bytes of events sent to clients, and of the log");
    describe_gauge!(CURRENT_CALLS, Unit::Count, "gRPC calls that have not ended");
    describe_gauge!(CALLS, Unit::Count, "gRPC calls since the start");
    describe_histogram!(FLUSH_DURATION, Unit::Seconds, "Duration of a flush of the log to disk");
    describe_gauge!(CHECKPOINTS, "Position of the newest event");
    describe_gauge!(DISK_BYTES, Unit::Bytes, "Used and total bytes of the store's file system");
    describe_gauge!(STORE_BYTES, Unit::Bytes, "Bytes of the store's files");
    describe_gauge!(ACCEPTS_APPENDS, "1 if the store accepts appends, 0 after a failed write");
    LazyLock::force(&INSTRUMENTS);
}
