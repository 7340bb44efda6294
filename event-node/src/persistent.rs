//! Persistent subscriptions: groups of consumers that share a stream's events, at least once each.

mod actor;
mod command;
mod consumers;
mod hub;
mod machine;
#[cfg(test)]
mod machine_properties;
mod measurements;
mod message;
mod parked;
mod pinned;
mod replay;
mod settings;
mod source;

pub(crate) use crate::persistent::{
    command::{Answer, Connected, ConsumerInfo, Delivery, GroupInfo, NewConsumer, ToConsumer},
    hub::{GroupHandle, Hub, HubError},
    machine::NackAction,
    settings::{ALL, Settings, StartFrom, Strategy},
};
