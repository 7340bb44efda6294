//! The consumers of a group, and which of them gets the next message.

use std::time::Duration;

use crate::{
    log::ResolvedEvent,
    persistent::{
        measurements::Measurements,
        pinned::{Buckets, PinnedBy, bucket_of},
        settings::Strategy,
    },
};

/// Names a consumer within its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConsumerId(pub u64);

/// A connected consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    pub id: ConsumerId,
    pub connection_name: String,
    /// Messages that it takes at a time.
    pub slots: usize,
    pub in_flight: usize,
    pub sent: Counter,
    pub measurements: Measurements,
}

/// Counts, and remembers what it said last.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub total: u64,
    measured: u64,
    measured_at: Duration,
}

/// What happened since the measurement before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub total: u64,
    pub since_last: u64,
    pub per_second: u64,
}

impl Counter {
    pub(super) fn measure(&mut self, now: Duration) -> Rate {
        let since_last = self.total - self.measured;
        let millis = u64::try_from(now.saturating_sub(self.measured_at).as_millis()).unwrap_or(0);
        let per_second = since_last.saturating_mul(1_000).checked_div(millis).unwrap_or(0);
        self.measured = self.total;
        self.measured_at = now;
        Rate { total: self.total, since_last, per_second }
    }
}

/// What the strategy says about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    To(ConsumerId),
    /// Its consumer is full; others may have room for other messages.
    Skip,
    /// Nobody has room.
    Full,
}

/// All consumers of a group.
#[derive(Debug)]
pub(super) struct Consumers {
    sharing: Sharing,
    /// Round robin rotates this list; otherwise it is in the order of connecting.
    list: Vec<Consumer>,
}

#[derive(Debug)]
enum Sharing {
    RoundRobin,
    Single,
    Pinned(PinnedBy, Box<Buckets>),
}

impl Consumers {
    pub(super) fn new(strategy: Strategy) -> Self {
        let sharing = match strategy {
            Strategy::RoundRobin => Sharing::RoundRobin,
            Strategy::DispatchToSingle => Sharing::Single,
            Strategy::Pinned => Sharing::Pinned(PinnedBy::Stream, Box::default()),
            Strategy::PinnedByCorrelation => Sharing::Pinned(PinnedBy::Correlation, Box::default()),
        };
        Self { sharing, list: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Consumer> {
        self.list.iter_mut()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.list.iter().map(|consumer| consumer.in_flight).sum()
    }

    pub(super) fn join(&mut self, consumer: Consumer) {
        let id = consumer.id;
        self.list.push(consumer);
        let ids = self.ids();
        if let Sharing::Pinned(_, buckets) = &mut self.sharing {
            buckets.join(id, &ids);
        }
    }

    pub(super) fn leave(&mut self, id: ConsumerId) {
        self.list.retain(|consumer| consumer.id != id);
        if let Sharing::Pinned(_, buckets) = &mut self.sharing {
            buckets.leave(id);
        }
    }

    /// Chooses who gets the message.
    pub(super) fn choose(&mut self, resolved: &ResolvedEvent) -> Choice {
        let Some(first_free) = self.list.iter().position(Consumer::has_room) else {
            return Choice::Full;
        };
        match &mut self.sharing {
            Sharing::Single | Sharing::RoundRobin => {
                self.list.get(first_free).map_or(Choice::Full, |consumer| Choice::To(consumer.id))
            }
            Sharing::Pinned(by, buckets) => {
                let bucket = bucket_of(resolved, *by);
                let ids: Vec<_> = self.list.iter().map(|consumer| consumer.id).collect();
                let owner = buckets.owner(bucket, &ids);
                let mut list = self.list.iter();
                match list.find(|consumer| Some(consumer.id) == owner && consumer.has_room()) {
                    Some(consumer) => Choice::To(consumer.id),
                    None => Choice::Skip,
                }
            }
        }
    }

    /// Takes a slot.
    pub(super) fn sent(&mut self, id: ConsumerId, resolved: &ResolvedEvent) {
        if let Some(consumer) = self.list.iter_mut().find(|consumer| consumer.id == id) {
            consumer.in_flight += 1;
            consumer.sent.total += 1;
        }
        match &mut self.sharing {
            Sharing::RoundRobin => {
                // The consumer goes to the end, and so do those before it, which were full and
                // have lost their turn.
                if let Some(index) = self.list.iter().position(|consumer| consumer.id == id) {
                    self.list.rotate_left(index + 1);
                }
            }
            Sharing::Single => {}
            Sharing::Pinned(by, buckets) => buckets.sent(bucket_of(resolved, *by)),
        }
    }

    /// Gives the slot back. `latency` is that of a finished message.
    pub(super) fn returned(
        &mut self,
        id: ConsumerId,
        resolved: &ResolvedEvent,
        latency: Option<Duration>,
    ) {
        if let Sharing::Pinned(by, buckets) = &mut self.sharing {
            buckets.returned(bucket_of(resolved, *by));
        }
        let Some(consumer) = self.list.iter_mut().find(|consumer| consumer.id == id) else {
            return;
        };
        consumer.in_flight = consumer.in_flight.saturating_sub(1);
        if let Some(latency) = latency {
            consumer.measurements.add(latency);
        }
    }

    fn ids(&self) -> Vec<ConsumerId> {
        self.list.iter().map(|consumer| consumer.id).collect()
    }
}

impl Consumer {
    pub(super) fn new(id: ConsumerId, slots: usize, connection_name: String) -> Self {
        Self {
            id,
            connection_name,
            slots,
            in_flight: 0,
            sent: Counter::default(),
            measurements: Measurements::default(),
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight < self.slots
    }
}
