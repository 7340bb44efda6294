//! Subscription to rows to query
