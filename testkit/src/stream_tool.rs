//! Changes to the streams of orders by operators and other programs.

use domain::ids::OrderId;
use eventstore::{
    AppendToStreamOptions, Client, DeleteStreamOptions, EventData, StreamMetadataBuilder,
    StreamState, TombstoneStreamOptions,
};

/// An EventStoreDB client that knows no orders.
pub struct StreamTool(Client);

impl StreamTool {
    /// Connects to the store at `url`. Must be called within a Tokio runtime.
    pub fn new(url: &str) -> Self {
        let settings = url.parse().expect("the URL is valid");
        Self(Client::new(settings).expect("the client is created"))
    }

    /// Soft-deletes the stream of an order: its events are hidden, and it can be appended to again.
    pub async fn delete(&self, order_id: OrderId) {
        let options = DeleteStreamOptions::default();
        let deleted = self.0.delete_stream(order_id.stream_name(), &options);
        deleted.await.expect("the stream is deleted");
    }

    /// Hard-deletes the stream of an order: it cannot be appended to again.
    pub async fn tombstone(&self, order_id: OrderId) {
        let options = TombstoneStreamOptions::default();
        let ended = self.0.tombstone_stream(order_id.stream_name(), &options);
        ended.await.expect("the stream is tombstoned");
    }

    /// Hides the events of an order before a revision.
    pub async fn truncate(&self, order_id: OrderId, before: u64) {
        let metadata = StreamMetadataBuilder::new().truncate_before(before).build();
        let options = AppendToStreamOptions::default();
        let truncated = self.0.set_stream_metadata(order_id.stream_name(), &options, &metadata);
        truncated.await.expect("the stream is truncated");
    }

    /// Appends an event with this text as data and as metadata, at any revision.
    pub async fn append(&self, order_id: OrderId, event_type: &str, text: &str) {
        self.append_with_metadata(order_id, event_type, [text, text]).await;
    }

    /// Appends an event with these texts as data and as metadata, at any revision.
    pub async fn append_with_metadata(
        &self,
        order_id: OrderId,
        event_type: &str,
        [data, metadata]: [&str; 2],
    ) {
        self.append_raw(&order_id.stream_name(), event_type, data, metadata).await;
    }

    /// Appends an event to a stream, at any revision, as a later release may do.
    pub async fn append_raw(&self, stream: &str, event_type: &str, data: &str, metadata: &str) {
        let [data, metadata] = [data, metadata].map(|text| text.to_owned().into_bytes().into());
        let event = EventData::binary(event_type, data).metadata(metadata);
        let options = AppendToStreamOptions::default().stream_state(StreamState::Any);
        let appended = self.0.append_to_stream(stream, &options, event);
        appended.await.expect("the event is appended");
    }
}
