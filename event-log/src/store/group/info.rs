//! The store's statistics about a group.

use crate::store::client::{Position, StoreClient};
use crate::store::error::LogError;

/// Number of a group's messages by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupStats {
    /// Read by the store and not delivered yet. The store reads ahead only so far (500 by default):
    /// more may wait behind. Events in its live buffer (`live_buffer_count`) are not added: they
    /// were delivered, or are counted here.
    pub waiting: usize,
    pub in_flight: usize,
    /// Waiting to be delivered again.
    pub retrying: usize,
    pub parked: usize,
}

/// A group and its members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupInfo {
    pub stats: GroupStats,
    pub members: Vec<GroupMember>,
    /// Every message up to here has been answered, according to the store's last checkpoint.
    pub checkpoint: Option<Position>,
    /// The newest event that the group knows of; it may be of another type than the group's.
    pub last_known: Option<Position>,
}

/// One connected worker of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Name of the worker's connection.
    pub name: String,
    pub in_flight: usize,
    /// Number of further deliveries that the member can hold.
    pub free_slots: usize,
    /// Number of deliveries since the member joined.
    pub n_delivered: usize,
}

impl GroupInfo {
    /// Returns the member whose connection has this name.
    pub fn member(&self, name: &str) -> Option<&GroupMember> {
        self.members.iter().find(|member| member.name == name)
    }
}

impl StoreClient {
    /// Reads the group's statistics; zeros if the group does not exist.
    pub async fn group_stats(&self, name: &str) -> Result<GroupStats, LogError> {
        Ok(self.group_info(name).await?.stats)
    }

    /// Reads the statistics of the group and its members; empty if the group does not exist.
    pub async fn group_info(&self, name: &str) -> Result<GroupInfo, LogError> {
        let options = eventstore::GetPersistentSubscriptionInfoOptions::default();
        self.call(async |client| {
            match client.get_persistent_subscription_info_to_all(name, &options).await {
                Ok(info) => Ok(to_group_info(info)),
                // The first worker creates the group.
                Err(eventstore::Error::ResourceNotFound) => Ok(GroupInfo::default()),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Asks the store to deliver parked messages again: all, or those before the number `stop_at`
    /// in the parked stream.
    pub async fn replay_parked(&self, name: &str, stop_at: Option<u64>) -> Result<(), LogError> {
        let mut options = eventstore::ReplayParkedMessagesOptions::default();
        if let Some(stop_at) = stop_at.and_then(|number| usize::try_from(number).ok()) {
            options = options.stop_at(stop_at);
        }
        self.call(async |client| client.replay_parked_messages_to_all(name, &options).await).await
    }
}

fn to_group_info(info: eventstore::PersistentSubscriptionInfo<eventstore::Position>) -> GroupInfo {
    let stats = info.stats;
    let members = info.connections.into_iter().map(|connection| GroupMember {
        name: connection.connection_name,
        in_flight: connection.in_flight_messages,
        free_slots: connection.available_slots,
        n_delivered: connection.total_items,
    });
    GroupInfo {
        stats: GroupStats {
            waiting: stats.read_buffer_count,
            in_flight: stats.total_in_flight_messages,
            retrying: stats.retry_buffer_count,
            parked: stats.parked_message_count,
        },
        members: members.collect(),
        checkpoint: stats.last_checkpointed_position.map(Position::from),
        last_known: stats.last_known_position.map(Position::from),
    }
}

#[cfg(test)]
mod tests {
    use eventstore::{PersistentSubscriptionInfo, PersistentSubscriptionStats};

    use super::*;

    #[test]
    fn handled_events_in_the_live_buffer_do_not_count_as_waiting() {
        // The response of EventStoreDB 23.10.6 for an idle group, minutes after its last event.
        let place = |at| Some(eventstore::Position { commit: at, prepare: at });
        let stats = PersistentSubscriptionStats {
            live_buffer_count: 500,
            last_checkpointed_position: place(7_321),
            last_known_position: place(9_004),
            ..PersistentSubscriptionStats::default()
        };
        let info = to_group_info(PersistentSubscriptionInfo {
            event_source: "$all".to_owned(),
            group_name: "fulfillment".to_owned(),
            status: "Live".to_owned(),
            connections: Vec::new(),
            settings: None,
            stats,
        });
        assert_eq!(info.stats, GroupStats::default());
        assert!(info.checkpoint < info.last_known, "other programs have appended");
    }
}
