//! Persistent subscriptions: groups of consumers that share a source's events, at least once each.
//!
//! A group's *source* is one stream or `$all`. A *source position* is a revision in the stream, or
//! a position in `$all`.
//!
//! `registry` creates and finds groups. `group_task` runs one group: it feeds events, commands and
//! time to the pure `state_machine`, and performs the effects that the state machine returns.

mod checkpoint;
mod command;
mod configuration;
mod consumers;
mod group_task;
mod latency;
mod live_buffer;
mod message;
mod parked_replay;
mod parked_stream;
mod pinning;
mod registry;
mod settings;
mod source_reader;
mod state_machine;
mod statistics;

pub(crate) use crate::persistent::{
    command::{
        Acknowledgement, ConsumerConnection, ConsumerMessage, ConsumerOptions, Delivery, NackAction,
    },
    parked_stream::oldest_parked_ticks,
    registry::{GroupError, GroupHandle, GroupRegistry},
    settings::{ALL_STREAM, ConsumerStrategy, GroupSettings, StartFrom},
    statistics::{ConsumerInfo, GroupInfo},
};
