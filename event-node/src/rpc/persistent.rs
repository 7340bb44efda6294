//! The rpcs of persistent subscriptions, and what they have in common.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod info;
pub(crate) mod read;
pub(crate) mod replay;
pub(crate) mod settings;
pub(crate) mod update;

use tonic::Status;

use crate::{
    log::GroupKey,
    persistent::{ALL, HubError},
    rpc::{
        convert::{group_name_within_limits, stream_name},
        status,
    },
    wire::event_store::client::StreamIdentifier,
};

/// What a group reads, as a request names it.
pub(crate) enum SourceName {
    All,
    Stream(Option<StreamIdentifier>),
}

/// The group that a request is about.
pub(crate) fn group_key(source: SourceName, name: String) -> Result<GroupKey, Status> {
    group_name_within_limits(&name)?;
    let stream = match source {
        SourceName::All => ALL.to_owned(),
        SourceName::Stream(identifier) => stream_name(identifier)?,
    };
    Ok(GroupKey { stream, name })
}

/// What the protocol answers for a failure about a group.
pub(crate) fn refused(error: HubError, key: &GroupKey) -> Status {
    match error {
        HubError::Exists => status::group_exists(key),
        HubError::Missing => status::group_missing(key),
        HubError::Settings(reason) => status::group_failed(key, reason),
        HubError::TooMany => status::group_failed(key, &error.to_string()),
        HubError::Filter(error) => error.into(),
        HubError::Log(error) => error.into(),
    }
}

impl From<HubError> for Status {
    /// Of a call that is about no group in particular.
    fn from(error: HubError) -> Self {
        refused(error, &GroupKey { stream: String::new(), name: String::new() })
    }
}
