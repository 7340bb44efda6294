//! The pinned strategies: messages with one key go to one consumer.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::{
    log::{Event, ResolvedEvent},
    persistent::command::ConsumerId,
};

/// Number of buckets. Keys are hashed to buckets, and each bucket belongs to one consumer.
const BUCKETS: usize = 1_024;

/// Property of an event's JSON metadata that holds its correlation id.
const CORRELATION_KEY: &str = "$correlationId";

/// The key that pins a message to a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PinningKey {
    Stream,
    Correlation,
}

/// The owner of each bucket.
#[derive(Debug)]
pub(super) struct BucketOwners {
    buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    owner: Option<ConsumerId>,
    n_in_flight: usize,
}

impl Default for BucketOwners {
    fn default() -> Self {
        Self { buckets: vec![Bucket::default(); BUCKETS] }
    }
}

impl BucketOwners {
    /// Returns the bucket's owner, which is one of `consumers`. Assigns a bucket without an owner
    /// to the consumer with the fewest buckets.
    pub(super) fn assign_owner(
        &mut self,
        bucket: usize,
        consumers: &[ConsumerId],
    ) -> Option<ConsumerId> {
        // An owner keeps its bucket while it is connected: one consumer gets all messages of a key.
        let owner = self.buckets.get(bucket)?.owner;
        if let Some(owner) = owner.filter(|owner| consumers.contains(owner)) {
            return Some(owner);
        }
        let new = consumers.iter().copied().min_by_key(|consumer| self.count_buckets(*consumer))?;
        self.buckets.get_mut(bucket)?.owner = Some(new);
        Some(new)
    }

    /// Moves a fair share of buckets to the consumer `new`. Buckets with few messages in flight
    /// move first, so that fewer messages of one key are with two consumers at a time.
    pub(super) fn add_consumer(&mut self, new: ConsumerId, consumers: &[ConsumerId]) {
        let mut counts: HashMap<ConsumerId, usize> = HashMap::new();
        for owner in self.buckets.iter().filter_map(|bucket| bucket.owner) {
            *counts.entry(owner).or_default() += 1;
        }
        let assigned: usize = counts.values().sum();
        let share = assigned.div_ceil(consumers.len().max(1));
        let mut moved = 0;
        let mut in_order: Vec<&mut Bucket> = self.buckets.iter_mut().collect();
        in_order.sort_by_key(|bucket| bucket.n_in_flight);
        for bucket in in_order {
            if moved >= share {
                return;
            }
            let Some(count) = bucket.owner.and_then(|owner| counts.get_mut(&owner)) else {
                continue;
            };
            if *count > share {
                *count -= 1;
                moved += 1;
                bucket.owner = Some(new);
            }
        }
    }

    pub(super) fn remove_consumer(&mut self, gone: ConsumerId) {
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.owner == Some(gone)) {
            bucket.owner = None;
        }
    }

    pub(super) fn add_in_flight(&mut self, bucket: usize) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.n_in_flight += 1;
        }
    }

    pub(super) fn remove_in_flight(&mut self, bucket: usize) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.n_in_flight = bucket.n_in_flight.saturating_sub(1);
        }
    }

    fn count_buckets(&self, consumer: ConsumerId) -> usize {
        self.buckets.iter().filter(|bucket| bucket.owner == Some(consumer)).count()
    }
}

pub(super) fn bucket_of(resolved: &ResolvedEvent, key: PinningKey) -> usize {
    let Some(event) = resolved.event.as_ref().or(resolved.link.as_ref()) else { return 0 };
    let correlation = match key {
        PinningKey::Stream => None,
        PinningKey::Correlation => correlation_of(event),
    };
    match correlation {
        Some(correlation) => hash_to_bucket(&correlation),
        // An unresolved link belongs to the bucket of its target's stream.
        None => hash_to_bucket(event.link_target().map_or(&*event.stream, |target| target.stream)),
    }
}

fn correlation_of(event: &Event) -> Option<String> {
    let metadata: serde_json::Value = serde_json::from_slice(&event.metadata).ok()?;
    Some(metadata.get(CORRELATION_KEY)?.as_str()?.to_owned())
}

fn hash_to_bucket(name: &str) -> usize {
    // EventStoreDB uses xxHash, but clients cannot see buckets, so any hash serves. This one has
    // fixed keys: a name always has the same bucket.
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    usize::try_from(hasher.finish() % BUCKETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConsumerId = ConsumerId(1);
    const B: ConsumerId = ConsumerId(2);

    #[test]
    fn second_consumer_gets_half_of_the_buckets() {
        let mut owners = BucketOwners::default();
        for bucket in 0..100 {
            assert_eq!(owners.assign_owner(bucket, &[A]), Some(A));
        }
        owners.add_in_flight(0);
        owners.add_consumer(B, &[A, B]);
        assert_eq!((owners.count_buckets(A), owners.count_buckets(B)), (50, 50));
        assert_eq!(owners.assign_owner(0, &[A, B]), Some(A), "busy buckets move last");
    }

    #[test]
    fn buckets_of_disconnected_consumer_get_new_owner() {
        let mut owners = BucketOwners::default();
        assert_eq!(owners.assign_owner(7, &[A]), Some(A));
        owners.remove_consumer(A);
        assert_eq!(owners.assign_owner(7, &[B]), Some(B));
    }
}
