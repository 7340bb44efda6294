//! Detection of a membership that delivers nothing although work waits.
//!
//! A group that delivers nothing is idle, as a rule. It counts as silent on evidence only: by the
//! store's statistics if they leave no doubt, otherwise by an order that waits according to its own
//! stream. Statistics that mean something else on another server are no evidence:
//! `live_buffer_count` stays up after its events were handled, and the last known event may belong
//! to another program.

use domain::ids::OrderId;
use eventstore::SubscriptionFilter;

use super::delivery::GroupSettings;
use super::info::GroupInfo;
use crate::store::client::{Position, StoreClient};
use crate::store::error::LogError;

/// Finds work that waits according to the orders' own streams.
pub(crate) trait PendingWork: Clone + Send + Sync + 'static {
    /// Returns the first order behind a position that an event of this type has queued and whose
    /// attempt has not ended.
    fn first_pending_order(
        &self,
        event_type: &str,
        after: Option<Position>,
    ) -> impl Future<Output = Result<Option<OrderId>, LogError>> + Send;
}

/// Evidence that an idle membership is silent. Two checks in a row must find the same: work found by
/// one check may be about to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// The store counts deliveries to this worker that it does not hold, or messages that it could
    /// deliver, or does not know this worker.
    Group,
    /// This order waits according to its own stream, and no delivery is in flight.
    Order(OrderId),
}

/// Looks for work that waits for a worker that holds nothing.
pub(super) async fn find_missed_work(
    client: &StoreClient,
    settings: &GroupSettings,
    pending_work: &impl PendingWork,
) -> Result<Option<Suspicion>, LogError> {
    let info = client.group_info(&settings.name).await?;
    if is_missing_work(&info, client.connection_name()) {
        return Ok(Some(Suspicion::Group));
    }
    let is_all_answered = info.last_known.is_some() && info.checkpoint >= info.last_known;
    // A delivery in flight may be the waiting order's: its message time-out decides.
    if is_all_answered || info.stats.in_flight > 0 {
        return Ok(None);
    }
    let pending = pending_work.first_pending_order(&settings.event_type, info.checkpoint).await?;
    Ok(pending.map(Suspicion::Order))
}

/// Returns whether the store's statistics prove that this worker misses work. An earlier connection
/// of this worker may still be a member: one member that looks sound is enough.
fn is_missing_work(info: &GroupInfo, name: Option<&str>) -> bool {
    let n_deliverable = info.stats.waiting + info.stats.retrying;
    // Without a name of its own, this worker cannot be told from other members.
    let Some(name) = name else { return n_deliverable > 0 };
    info.members
        .iter()
        .filter(|member| member.name == name)
        // True without any member: the store does not know this worker.
        .all(|member| member.in_flight > 0 || (n_deliverable > 0 && member.free_slots > 0))
}

/// Returns a filter for events of exactly this type.
pub(crate) fn only_type(event_type: &str) -> SubscriptionFilter {
    SubscriptionFilter::on_event_type().regex(format!("^{event_type}$"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::group::info::{GroupMember, GroupStats};

    fn member(in_flight: usize, free_slots: usize) -> GroupMember {
        GroupMember { name: "me".to_owned(), in_flight, free_slots, n_delivered: 0 }
    }

    fn info(waiting: usize, retrying: usize, members: Vec<GroupMember>) -> GroupInfo {
        let stats = GroupStats { waiting, retrying, ..GroupStats::default() };
        GroupInfo { stats, members, ..GroupInfo::default() }
    }

    #[test]
    fn statistics_are_evidence_only_beyond_doubt() {
        let is_missing_work = |info| is_missing_work(&info, Some("me"));
        assert!(!is_missing_work(info(0, 0, vec![member(0, 4)])), "idle");
        assert!(is_missing_work(info(1, 0, vec![member(0, 4)])), "work waits");
        assert!(is_missing_work(info(0, 1, vec![member(0, 4)])), "a retry waits");
        assert!(!is_missing_work(info(1, 0, vec![member(0, 0)])), "no free slot");
        assert!(is_missing_work(info(0, 0, vec![member(1, 3)])), "a delivery is lost");
        let one_sound = vec![member(1, 3), member(0, 4)];
        assert!(!is_missing_work(info(0, 0, one_sound)), "one member looks sound");
        assert!(is_missing_work(info(0, 0, vec![])), "unknown to the store");
    }
}
