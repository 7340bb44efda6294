//! Comparison of the settings that the store keeps of a group with those of a new group. The store
//! applies settings when it creates a group, and keeps them when a worker's configuration changes.

use std::time::Duration;

use eventstore::{PersistentSubscriptionSettings, Position, StreamPosition};

use super::connection::stored_settings;
use crate::store::client::StoreClient;
use crate::store::error::LogError;

/// A setting of a group that differs from the one of a new group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingDrift {
    /// EventStoreDB's name of the setting.
    pub setting: &'static str,
    pub stored: String,
    pub expected: String,
}

impl StoreClient {
    /// Returns the settings of a group that differ from those that a worker would create it with;
    /// `None` if the group does not exist.
    pub async fn find_setting_drift(
        &self,
        group: &str,
        message_timeout: Duration,
        max_retry_count: i32,
    ) -> Result<Option<Vec<SettingDrift>>, LogError> {
        let options = eventstore::GetPersistentSubscriptionInfoOptions::default();
        let found = self
            .call(async |client| {
                match client.get_persistent_subscription_info_to_all(group, &options).await {
                    Ok(info) => Ok(Some(info)),
                    Err(eventstore::Error::ResourceNotFound) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await?;
        let expected = stored_settings(message_timeout, max_retry_count);
        Ok(found.map(|info| {
            info.settings.map_or_else(Vec::new, |stored| compare_settings(&stored, &expected))
        }))
    }
}

fn compare_settings(
    stored: &PersistentSubscriptionSettings<Position>,
    expected: &PersistentSubscriptionSettings<Position>,
) -> Vec<SettingDrift> {
    let described = describe_settings(stored).into_iter().zip(describe_settings(expected));
    described
        .filter(|((_, stored), (_, expected))| stored != expected)
        .map(|((setting, stored), (_, expected))| SettingDrift { setting, stored, expected })
        .collect()
}

/// Returns the settings that decide what is delivered, when, and how often. The sizes of buffers do
/// not.
fn describe_settings(
    settings: &PersistentSubscriptionSettings<Position>,
) -> [(&'static str, String); 8] {
    let start = match settings.start_from {
        // The store reports the start of the log as its first position.
        StreamPosition::Start | StreamPosition::Position(Position { commit: 0, .. }) => {
            "start".to_owned()
        }
        StreamPosition::End => "end".to_owned(),
        StreamPosition::Position(position) => format!("position {}", position.commit),
    };
    let milliseconds = |duration: Duration| format!("{} ms", duration.as_millis());
    [
        ("startFrom", start),
        ("resolveLinkTos", settings.resolve_link_tos.to_string()),
        ("messageTimeout", milliseconds(settings.message_timeout)),
        ("maxRetryCount", settings.max_retry_count.to_string()),
        ("checkPointAfter", milliseconds(settings.checkpoint_after)),
        ("minCheckPointCount", settings.checkpoint_lower_bound.to_string()),
        ("maxCheckPointCount", settings.checkpoint_upper_bound.to_string()),
        ("maxSubscriberCount", settings.max_subscriber_count.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_differ_are_named() {
        let expected = stored_settings(Duration::from_secs(30), 100_000);
        let start = StreamPosition::Position(Position { commit: 0, prepare: 0 });
        let same = PersistentSubscriptionSettings { start_from: start, ..expected.clone() };
        assert_eq!(compare_settings(&same, &expected), []);
        let changed = PersistentSubscriptionSettings {
            message_timeout: Duration::from_secs(10),
            start_from: StreamPosition::End,
            read_batch_size: 7,
            ..expected.clone()
        };
        let drift = |setting, stored: &str, expected: &str| SettingDrift {
            setting,
            stored: stored.to_owned(),
            expected: expected.to_owned(),
        };
        assert_eq!(
            compare_settings(&changed, &expected),
            [drift("startFrom", "end", "start"), drift("messageTimeout", "10000 ms", "30000 ms")]
        );
    }
}
