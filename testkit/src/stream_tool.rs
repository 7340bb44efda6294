//! What operators and other programs do to streams of orders.

use domain::ids::OrderId;
use eventstore::{
    AppendToStreamOptions, Client, DeleteStreamOptions, EventData, StreamMetadataBuilder,
    StreamState, TombstoneStreamOptions,
};

/// A tool that knows nothing of orders.
pub struct StreamTool(Client);

impl StreamTool {
    /// For the store of that address. To be called within a Tokio runtime.
    pub fn of(url: &str) -> Self {
        let settings = url.parse().expect("the address is one");
        Self(Client::new(settings).expect("a client is made"))
    }

    /// Hides all events of an order, until something is appended to its stream.
    pub async fn delete(&self, order_id: OrderId) {
        let options = DeleteStreamOptions::default();
        let deleted = self.0.delete_stream(order_id.stream_name(), &options);
        deleted.await.expect("the stream is deleted");
    }

    /// Ends an order's stream for ever.
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

    /// Appends an event with this text as data and as metadata, whatever there is in the stream.
    pub async fn append(&self, order_id: OrderId, event_type: &str, text: &str) {
        let text = text.to_owned().into_bytes();
        let event = EventData::binary(event_type, text.clone().into()).metadata(text.into());
        let options = AppendToStreamOptions::default().stream_state(StreamState::Any);
        let appended = self.0.append_to_stream(order_id.stream_name(), &options, event);
        appended.await.expect("the event is appended");
    }
}
