//! Access control lists: those of streams in their metadata, and the default ones in the stream
//! `$settings`.

use serde_json::{Map, Value};

use crate::log::{
    Log, MAX_RECENT_EVENTS,
    error::LogError,
    event::{METASTREAM_PREFIX, TOMBSTONE_REVISION, described_stream, metastream_of},
    pages::StreamRead,
    stream_acl::StreamAcl,
    stream_metadata::{parse_object, raw_acl, read_acl},
};

/// Stream whose newest event holds the default lists.
pub(crate) const SETTINGS_STREAM: &str = "$settings";

/// Keys of the default lists for user streams and system streams.
const USER_STREAM_ACL: &str = "$userStreamAcl";
const SYSTEM_STREAM_ACL: &str = "$systemStreamAcl";

/// The lists that apply to streams without an own list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DefaultAcls {
    pub user_streams: Option<StreamAcl>,
    pub system_streams: Option<StreamAcl>,
}

/// Streams whose list may have changed.
pub(crate) struct MetadataChanges {
    /// Position up to which the changes are complete.
    pub up_to: u64,
    pub streams: Vec<String>,
}

impl DefaultAcls {
    /// Parses the data of an event in `$settings`. As in EventStoreDB, invalid data sets no list.
    fn from_settings(data: &[u8]) -> Self {
        Self::from_object(&parse_object(data)).unwrap_or_default()
    }

    fn from_object(settings: &Map<String, Value>) -> Option<Self> {
        let parse = |key| match settings.get(key) {
            None => Some(None),
            Some(value) => StreamAcl::from_value(value).map(Some),
        };
        Some(Self {
            user_streams: parse(USER_STREAM_ACL)?,
            system_streams: parse(SYSTEM_STREAM_ACL)?,
        })
    }
}

impl Log {
    /// Reads the list in the metadata of `stream`. As in EventStoreDB, metadata with an invalid
    /// value has no list.
    pub(crate) async fn read_stream_acl(
        &self,
        stream: &str,
    ) -> Result<Option<StreamAcl>, LogError> {
        let newest = self.read_newest_event(&metastream_of(stream)).await?;
        let StreamRead::Page(page) = newest else { return Ok(None) };
        Ok(page.events.first().and_then(|event| read_acl(event.is_json, &event.data)))
    }

    /// Reads the list in the metadata of `stream` as JSON, valid or not.
    pub(crate) async fn read_raw_acl(&self, stream: &str) -> Result<Option<Value>, LogError> {
        let newest = self.read_newest_event(&metastream_of(stream)).await?;
        let StreamRead::Page(page) = newest else { return Ok(None) };
        Ok(page.events.first().and_then(|event| raw_acl(&event.data)))
    }

    pub(crate) async fn read_default_acls(&self) -> Result<DefaultAcls, LogError> {
        let newest = self.read_newest_event(SETTINGS_STREAM).await?;
        let StreamRead::Page(page) = newest else { return Ok(DefaultAcls::default()) };
        let settings = page.events.first().map(|event| DefaultAcls::from_settings(&event.data));
        Ok(settings.unwrap_or_default())
    }

    /// Returns the streams whose list may have changed by an event after `position`. `None` if these
    /// events are not in memory any more.
    pub(crate) fn metadata_changes_after(&self, position: u64) -> Option<MetadataChanges> {
        let head = self.head();
        let mut changes = MetadataChanges { up_to: position, streams: Vec::new() };
        while changes.up_to < head {
            let events = self.shared.tail_cache.events_after(changes.up_to, MAX_RECENT_EVENTS)?;
            changes.up_to = events.last()?.position;
            for event in events {
                if event.stream.starts_with(METASTREAM_PREFIX) {
                    changes.streams.extend(described_stream(&event.stream).map(str::to_owned));
                // A tombstone voids the metadata. The settings are in a stream of their own.
                } else if event.revision == TOMBSTONE_REVISION || &*event.stream == SETTINGS_STREAM
                {
                    changes.streams.push(event.stream.as_ref().to_owned());
                }
            }
        }
        Some(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::stream_acl::Right;

    #[test]
    fn invalid_settings_set_no_default_list() {
        let settings = |json: &str| DefaultAcls::from_settings(json.as_bytes());
        let both = settings(r#"{"$userStreamAcl":{"$r":"a"},"$systemStreamAcl":{},"mine":1}"#);
        assert_eq!(both.user_streams.unwrap().roles(Right::Read).unwrap(), ["a"]);
        assert_eq!(both.system_streams, Some(StreamAcl::default()));
        for invalid in [r#"{"$userStreamAcl":{"$r":"a"},"$systemStreamAcl":5}"#, "5", ""] {
            assert_eq!(settings(invalid), DefaultAcls::default(), "{invalid}");
        }
    }
}
