//! The rpcs of persistent subscriptions, and their common conversions.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get_info;
pub(crate) mod read;
pub(crate) mod replay_parked;
pub(crate) mod settings;
pub(crate) mod update;

use tonic::Status;

use crate::{
    log::GroupKey,
    persistent::{ALL_STREAM, GroupError},
    rpc::{
        convert::{check_group_name, parse_stream_name},
        status,
    },
    wire::event_store::client::StreamIdentifier,
};

/// A group's source, as a request names it.
pub(crate) enum RequestedSource {
    All,
    Stream(Option<StreamIdentifier>),
}

/// Parses stream and name of a group.
pub(crate) fn parse_group_key(source: RequestedSource, name: String) -> Result<GroupKey, Status> {
    check_group_name(&name)?;
    let stream = match source {
        RequestedSource::All => ALL_STREAM.to_owned(),
        RequestedSource::Stream(identifier) => parse_stream_name(identifier)?,
    };
    Ok(GroupKey { stream, name })
}

/// Returns the status of an error about a group.
pub(crate) fn group_error_status(error: GroupError, key: &GroupKey) -> Status {
    match error {
        GroupError::Exists => status::group_exists(key),
        GroupError::Missing => status::group_missing(key),
        GroupError::Settings(reason) => status::group_failed(key, reason),
        GroupError::TooMany => status::group_failed(key, &error.to_string()),
        GroupError::Filter(error) => error.into(),
        GroupError::Log(error) => error.into(),
    }
}

impl From<GroupError> for Status {
    /// Returns the status of an error that is about no single group.
    fn from(error: GroupError) -> Self {
        group_error_status(error, &GroupKey { stream: String::new(), name: String::new() })
    }
}
