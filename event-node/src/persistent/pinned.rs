//! Which consumer gets a stream's messages when they are pinned to one.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::{
    log::{Event, ResolvedEvent},
    persistent::consumers::ConsumerId,
};

/// Streams are spread over so many buckets, and buckets over consumers.
const BUCKETS: usize = 1_024;

/// Key in an event's JSON metadata that says what it belongs to.
const CORRELATION_KEY: &str = "$correlationId";

/// What messages are pinned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PinnedBy {
    Stream,
    Correlation,
}

/// Who has which bucket.
#[derive(Debug)]
pub(super) struct Buckets {
    buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    owner: Option<ConsumerId>,
    in_flight: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { buckets: vec![Bucket::default(); BUCKETS] }
    }
}

impl Buckets {
    /// The owner of the message's bucket, one of `consumers`: if it has none, whoever has the
    /// fewest buckets.
    pub(super) fn owner(&mut self, bucket: usize, consumers: &[ConsumerId]) -> Option<ConsumerId> {
        let owner = self.buckets.get(bucket)?.owner;
        if let Some(owner) = owner.filter(|owner| consumers.contains(owner)) {
            return Some(owner);
        }
        let new = consumers.iter().copied().min_by_key(|consumer| self.count(*consumer))?;
        self.buckets.get_mut(bucket)?.owner = Some(new);
        Some(new)
    }

    /// Gives a new consumer its share, of buckets with little in flight first.
    pub(super) fn join(&mut self, new: ConsumerId, consumers: &[ConsumerId]) {
        let mut counts: HashMap<ConsumerId, usize> = HashMap::new();
        for owner in self.buckets.iter().filter_map(|bucket| bucket.owner) {
            *counts.entry(owner).or_default() += 1;
        }
        let assigned: usize = counts.values().sum();
        let share = assigned.div_ceil(consumers.len().max(1));
        let mut taken = 0;
        let mut in_order: Vec<&mut Bucket> = self.buckets.iter_mut().collect();
        in_order.sort_by_key(|bucket| bucket.in_flight);
        for bucket in in_order {
            if taken >= share {
                return;
            }
            let Some(count) = bucket.owner.and_then(|owner| counts.get_mut(&owner)) else {
                continue;
            };
            if *count > share {
                *count -= 1;
                taken += 1;
                bucket.owner = Some(new);
            }
        }
    }

    pub(super) fn leave(&mut self, gone: ConsumerId) {
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.owner == Some(gone)) {
            bucket.owner = None;
        }
    }

    pub(super) fn sent(&mut self, bucket: usize) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.in_flight += 1;
        }
    }

    pub(super) fn returned(&mut self, bucket: usize) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.in_flight = bucket.in_flight.saturating_sub(1);
        }
    }

    fn count(&self, consumer: ConsumerId) -> usize {
        self.buckets.iter().filter(|bucket| bucket.owner == Some(consumer)).count()
    }
}

/// The bucket of a message.
pub(super) fn bucket_of(resolved: &ResolvedEvent, by: PinnedBy) -> usize {
    let Some(event) = resolved.event.as_ref().or(resolved.link.as_ref()) else { return 0 };
    let correlation = match by {
        PinnedBy::Stream => None,
        PinnedBy::Correlation => correlation_of(event),
    };
    match correlation {
        Some(correlation) => hash(&correlation),
        None => hash(event.link_target().map_or(&*event.stream, |target| target.stream)),
    }
}

fn correlation_of(event: &Event) -> Option<String> {
    let metadata: serde_json::Value = serde_json::from_slice(&event.metadata).ok()?;
    Some(metadata.get(CORRELATION_KEY)?.as_str()?.to_owned())
}

fn hash(name: &str) -> usize {
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
    fn a_second_consumer_gets_half_and_keeps_it() {
        let mut buckets = Buckets::default();
        for bucket in 0..100 {
            assert_eq!(buckets.owner(bucket, &[A]), Some(A));
        }
        buckets.sent(0);
        buckets.join(B, &[A, B]);
        assert_eq!((buckets.count(A), buckets.count(B)), (50, 50));
        assert_eq!(buckets.owner(0, &[A, B]), Some(A), "busy buckets move last");
    }

    #[test]
    fn the_buckets_of_a_gone_consumer_go_to_others() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.owner(7, &[A]), Some(A));
        buckets.leave(A);
        assert_eq!(buckets.owner(7, &[B]), Some(B));
    }
}
