//! HTTP to decide to append
