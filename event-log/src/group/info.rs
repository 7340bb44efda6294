//! What a group is doing, as the store says.

use crate::client::{EventLog, Position};
use crate::error::LogError;

/// A group's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupStats {
    /// Read by the store and not handed to any consumer yet. The store reads ahead only so far
    /// (500 by default): more may wait behind that many. Events that it keeps for a switch between
    /// live and catching up (`live_buffer_count`) are not counted: those were handed out, or are
    /// counted here.
    pub waiting: usize,
    pub in_flight: usize,
    /// To be delivered again.
    pub retrying: usize,
    pub parked: usize,
}

/// A group and its members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupInfo {
    pub stats: GroupStats,
    pub members: Vec<Member>,
    /// Every message up to here has been answered, as far as the store has written it down.
    pub checkpoint: Option<Position>,
    /// The newest event of the store that the group knows of, which need not be one of its own.
    pub last_known: Option<Position>,
}

/// One connected worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name of its connection.
    pub name: String,
    pub in_flight: usize,
    /// Deliveries that it could still be given.
    pub free_slots: usize,
    /// Deliveries that it was given since it joined.
    pub n_delivered: usize,
}

impl GroupInfo {
    /// The member whose connection has this name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|it| it.name == name)
    }
}

impl EventLog {
    /// What the group is doing. Zeros if there is no such group.
    pub async fn group_stats(&self, name: &str) -> Result<GroupStats, LogError> {
        Ok(self.group_info(name).await?.stats)
    }

    /// What the group and its members are doing. Nothing if there is no such group.
    pub async fn group_info(&self, name: &str) -> Result<GroupInfo, LogError> {
        let options = eventstore::GetPersistentSubscriptionInfoOptions::default();
        self.call(async |client| {
            match client.get_persistent_subscription_info_to_all(name, &options).await {
                Ok(info) => Ok(group_info(info)),
                Err(eventstore::Error::ResourceNotFound) => Ok(GroupInfo::default()),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Asks the store to deliver parked messages again: all, or those before the number `stop_at`
    /// of the parked stream.
    pub async fn replay_parked(&self, name: &str, stop_at: Option<u64>) -> Result<(), LogError> {
        let mut options = eventstore::ReplayParkedMessagesOptions::default();
        if let Some(stop_at) = stop_at.and_then(|it| usize::try_from(it).ok()) {
            options = options.stop_at(stop_at);
        }
        self.call(async |client| client.replay_parked_messages_to_all(name, &options).await).await
    }
}

fn group_info(info: eventstore::PersistentSubscriptionInfo<eventstore::Position>) -> GroupInfo {
    let stats = info.stats;
    let members = info.connections.into_iter().map(|it| Member {
        name: it.connection_name,
        in_flight: it.in_flight_messages,
        free_slots: it.available_slots,
        n_delivered: it.total_items,
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
    fn handled_events_that_the_store_keeps_in_its_live_buffer_do_not_wait() {
        // As EventStoreDB 23.10.6 answers for an idle group, minutes after its last event.
        let place = |at| Some(eventstore::Position { commit: at, prepare: at });
        let stats = PersistentSubscriptionStats {
            live_buffer_count: 500,
            last_checkpointed_position: place(7_321),
            last_known_position: place(9_004),
            ..PersistentSubscriptionStats::default()
        };
        let info = group_info(PersistentSubscriptionInfo {
            event_source: "$all".to_owned(),
            group_name: "fulfillment".to_owned(),
            status: "Live".to_owned(),
            connections: Vec::new(),
            settings: None,
            stats,
        });
        assert_eq!(info.stats, GroupStats::default());
        assert!(info.checkpoint < info.last_known, "by events of other programs");
    }
}
