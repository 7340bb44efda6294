//! The rpcs of persistent subscriptions, and their common conversions.

pub(crate) mod get_info;
pub(crate) mod group_management;
pub(crate) mod read;
pub(crate) mod settings;

use tonic::Status;

use crate::{
    log::GroupKey,
    persistent::{ALL_STREAM, GroupError},
    rpc::{
        convert::{check_group_name, parse_stream_name},
        status::{self, handler_threw},
    },
    wire::event_store::client::{StreamIdentifier, persistent_subscriptions as wire},
};

/// A group's source, as a request names it.
pub(crate) enum RequestedSource {
    All,
    Stream(Option<StreamIdentifier>),
}

/// Parses stream and name of a group. Fails if the source is missing.
pub(crate) fn parse_group_key(
    source: Option<impl Into<RequestedSource>>,
    name: String,
) -> Result<GroupKey, Status> {
    let source = source.ok_or_else(handler_threw)?.into();
    check_group_name(&name)?;
    let stream = match source {
        RequestedSource::All => ALL_STREAM.to_owned(),
        RequestedSource::Stream(identifier) => parse_stream_name(identifier)?,
    };
    Ok(GroupKey { stream, name })
}

macro_rules! requested_source_from {
    ($($source:path),+ $(,)?) => {$(
        impl From<$source> for RequestedSource {
            fn from(source: $source) -> Self {
                use $source as Wire;
                match source {
                    Wire::StreamIdentifier(stream) => Self::Stream(Some(stream)),
                    Wire::All(_) => Self::All,
                }
            }
        }
    )+};
}

requested_source_from!(
    wire::delete_req::options::Source,
    wire::get_info_req::options::Source,
    wire::read_req::options::Source,
    wire::replay_parked_req::options::Source,
);

/// Returns the conversion of an error about a group to its status.
pub(crate) fn status_for(key: &GroupKey) -> impl Fn(GroupError) -> Status {
    move |error| match error {
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
        status_for(&GroupKey { stream: String::new(), name: String::new() })(error)
    }
}
