//! The consumers of a group, and the choice of a consumer for each message.

use std::time::Duration;

use crate::{
    log::ResolvedEvent,
    persistent::{
        command::{ConsumerId, ConsumerOptions},
        latency::LatencyWindow,
        pinning::{BucketOwners, PinningKey, bucket_of},
        settings::ConsumerStrategy,
        statistics::{ConsumerInfo, RateCounter},
    },
};

#[derive(Debug)]
pub(super) struct Consumer {
    pub id: ConsumerId,
    pub connection_name: String,
    pub user_name: String,
    /// Maximum number of unacknowledged messages.
    pub n_slots: usize,
    pub n_in_flight: usize,
    pub sent: RateCounter,
    pub latencies: LatencyWindow,
}

/// The strategy's choice for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConsumerChoice {
    SendTo(ConsumerId),
    /// The message is pinned to a consumer without a free slot. Other messages may be sent.
    PinnedConsumerFull,
    /// No consumer has a free slot.
    AllFull,
}

#[derive(Debug)]
pub(super) struct ConsumerSet {
    dispatch: Dispatch,
    /// In the order of connecting. Round robin rotates the list.
    list: Vec<Consumer>,
}

/// A strategy with its state.
#[derive(Debug)]
enum Dispatch {
    RoundRobin,
    Single,
    Pinned(PinningKey, Box<BucketOwners>),
}

impl ConsumerSet {
    pub(super) fn new(strategy: ConsumerStrategy) -> Self {
        let pinned = |key| Dispatch::Pinned(key, Box::default());
        let dispatch = match strategy {
            ConsumerStrategy::RoundRobin => Dispatch::RoundRobin,
            ConsumerStrategy::DispatchToSingle => Dispatch::Single,
            ConsumerStrategy::Pinned => pinned(PinningKey::Stream),
            ConsumerStrategy::PinnedByCorrelation => pinned(PinningKey::Correlation),
        };
        Self { dispatch, list: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Describes all consumers and begins their next measurement.
    pub(super) fn measure_infos(&mut self, now: Duration) -> Vec<ConsumerInfo> {
        self.list.iter_mut().map(|consumer| consumer.measure_info(now)).collect()
    }

    pub(super) fn count_in_flight(&self) -> usize {
        self.list.iter().map(|consumer| consumer.n_in_flight).sum()
    }

    pub(super) fn add_consumer(&mut self, consumer: Consumer) {
        let id = consumer.id;
        self.list.push(consumer);
        let ids = self.ids();
        if let Dispatch::Pinned(_, owners) = &mut self.dispatch {
            owners.add_consumer(id, &ids);
        }
    }

    pub(super) fn remove_consumer(&mut self, id: ConsumerId) {
        self.list.retain(|consumer| consumer.id != id);
        if let Dispatch::Pinned(_, owners) = &mut self.dispatch {
            owners.remove_consumer(id);
        }
    }

    pub(super) fn choose_consumer(&mut self, resolved: &ResolvedEvent) -> ConsumerChoice {
        let Some(first_free) = self.list.iter().find(|consumer| consumer.has_free_slot()) else {
            return ConsumerChoice::AllFull;
        };
        let first_free = first_free.id;
        match &mut self.dispatch {
            Dispatch::Single | Dispatch::RoundRobin => ConsumerChoice::SendTo(first_free),
            Dispatch::Pinned(key, owners) => {
                let ids: Vec<_> = self.list.iter().map(|consumer| consumer.id).collect();
                let owner = owners.assign_owner(bucket_of(resolved, *key), &ids);
                let mut list = self.list.iter();
                match list.find(|consumer| Some(consumer.id) == owner && consumer.has_free_slot()) {
                    Some(consumer) => ConsumerChoice::SendTo(consumer.id),
                    None => ConsumerChoice::PinnedConsumerFull,
                }
            }
        }
    }

    /// Takes a slot of the consumer for a message that is sent.
    pub(super) fn take_slot(&mut self, id: ConsumerId, resolved: &ResolvedEvent) {
        if let Some(consumer) = self.list.iter_mut().find(|consumer| consumer.id == id) {
            consumer.n_in_flight += 1;
            consumer.sent.total += 1;
        }
        match &mut self.dispatch {
            Dispatch::RoundRobin => {
                // The consumer moves to the end of the list. Consumers before it were full: they
                // have lost their turn and move as well.
                if let Some(index) = self.list.iter().position(|consumer| consumer.id == id) {
                    self.list.rotate_left(index + 1);
                }
            }
            Dispatch::Single => {}
            Dispatch::Pinned(key, owners) => owners.add_in_flight(bucket_of(resolved, *key)),
        }
    }

    /// Frees a slot of the consumer. `latency` is the time that the consumer took to answer.
    pub(super) fn free_slot(
        &mut self,
        id: ConsumerId,
        resolved: &ResolvedEvent,
        latency: Option<Duration>,
    ) {
        // Before the consumer is looked up: a bucket also counts messages of a consumer that has
        // just gone.
        if let Dispatch::Pinned(key, owners) = &mut self.dispatch {
            owners.remove_in_flight(bucket_of(resolved, *key));
        }
        let Some(consumer) = self.list.iter_mut().find(|consumer| consumer.id == id) else {
            return;
        };
        consumer.n_in_flight = consumer.n_in_flight.saturating_sub(1);
        if let Some(latency) = latency {
            consumer.latencies.record_latency(latency);
        }
    }

    fn ids(&self) -> Vec<ConsumerId> {
        self.list.iter().map(|consumer| consumer.id).collect()
    }
}

impl Consumer {
    pub(super) fn new(id: ConsumerId, options: ConsumerOptions) -> Self {
        let ConsumerOptions { n_slots, connection_name, user_name } = options;
        Self {
            id,
            connection_name,
            user_name,
            n_slots,
            n_in_flight: 0,
            sent: RateCounter::default(),
            latencies: LatencyWindow::default(),
        }
    }

    /// Describes the consumer and begins its next measurement.
    fn measure_info(&mut self, now: Duration) -> ConsumerInfo {
        ConsumerInfo {
            connection_name: self.connection_name.clone(),
            user_name: self.user_name.clone(),
            sent: self.sent.measure_rate(now),
            n_free_slots: self.n_slots.saturating_sub(self.n_in_flight),
            n_in_flight: self.n_in_flight,
            latencies: self.latencies.summarize(),
        }
    }

    fn has_free_slot(&self) -> bool {
        self.n_in_flight < self.n_slots
    }
}
