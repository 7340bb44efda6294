//! The embedded event store: EventStoreDB's gRPC protocol over durable storage
