//! Persistent subscriptions: groups of consumers that share a stream's events, at least once each.

mod actor;
mod checkpoint;
mod command;
mod configuration;
mod consumers;
mod figures;
mod hub;
mod live;
mod machine;
#[cfg(test)]
mod machine_properties;
#[cfg(test)]
mod machine_world;
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
