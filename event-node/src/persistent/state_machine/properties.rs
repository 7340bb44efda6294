//! Properties of a group under random steps: no event is lost, and none is delivered too often.

use proptest::prelude::*;

use super::{
    NackAction,
    simulation::{BUFFER_SIZE, EVENTS, LIVE_BUFFER_SIZE, MAX_RETRIES, Simulation, Step, id_of},
};
use crate::persistent::{command::ConsumerId, message::Origin, settings::ConsumerStrategy};

fn any_step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        Just(NackAction::Retry),
        Just(NackAction::Unknown),
        Just(NackAction::Park),
        Just(NackAction::Skip),
        Just(NackAction::Stop),
    ];
    prop_oneof![
        4 => (1..8_u64).prop_map(Step::Commit),
        4 => (1..8_usize).prop_map(Step::Read),
        3 => (1..8_u64).prop_map(Step::LookAhead),
        2 => (1..5_usize).prop_map(Step::Connect),
        1 => (0..4_usize).prop_map(Step::Disconnect),
        8 => (0..20_usize).prop_map(Step::Ack),
        4 => (0..20_usize, action).prop_map(|(index, action)| Step::Nack(index, action)),
        3 => any::<bool>().prop_map(Step::Parked),
        3 => any::<bool>().prop_map(Step::Checkpointed),
        2 => (0..4_000_u64).prop_map(Step::Tick),
        1 => (0..30_u64).prop_map(Step::Replay),
        2 => Just(Step::ReadParked),
        2 => any::<bool>().prop_map(Step::Truncated),
        1 => Just(Step::Restart),
    ]
}

fn any_strategy() -> impl Strategy<Value = ConsumerStrategy> {
    prop_oneof![
        Just(ConsumerStrategy::RoundRobin),
        Just(ConsumerStrategy::DispatchToSingle),
        Just(ConsumerStrategy::Pinned),
        Just(ConsumerStrategy::PinnedByCorrelation),
    ]
}

proptest! {
    #[test]
    fn every_event_is_done_after_random_steps(
        strategy in any_strategy(),
        history in 0..EVENTS,
        steps in prop::collection::vec(any_step(), 0..300),
    ) {
        let mut simulation = Simulation::new(strategy, history);
        for step in &steps {
            simulation.run_step(step);
        }
        simulation.finish_all();
        prop_assert_eq!(simulation.done.len() as u64, EVENTS);
        prop_assert_eq!(simulation.stored_checkpoint, EVENTS);
        prop_assert_eq!(simulation.truncated, simulation.parked.len() as u64, "all replays are done");
        prop_assert!(simulation.group.is_drained());
        let counters = simulation.group.measure_counters(simulation.now);
        prop_assert!(counters.is_live, "a group that has read everything is live");
    }

    #[test]
    fn one_consumer_without_failures_gets_source_order(slots in 1..30_usize) {
        let mut simulation = Simulation::new(ConsumerStrategy::RoundRobin, EVENTS);
        simulation.run_step(&Step::Connect(slots));
        let mut delivered = Vec::new();
        while delivered.len() as u64 != EVENTS {
            simulation.run_step(&Step::Read(3));
            // An ack frees a slot, so the list grows again while this loop empties it.
            while let Some((id, ..)) = simulation.outstanding.first().copied() {
                delivered.push(simulation.position_of(id));
                simulation.run_step(&Step::Ack(0));
            }
        }
        prop_assert!(delivered.is_sorted());
    }
}

#[test]
fn two_consumers_get_equal_shares() {
    let mut simulation = Simulation::new(ConsumerStrategy::RoundRobin, EVENTS);
    simulation.run_step(&Step::Connect(10));
    simulation.run_step(&Step::Connect(10));
    simulation.run_step(&Step::Read(7));
    let first =
        simulation.outstanding.iter().filter(|delivery| delivery.1 == ConsumerId(0)).count();
    assert_eq!((first, simulation.outstanding.len()), (4, 7));
}

#[test]
fn retried_message_precedes_new_ones_until_parked() {
    let mut simulation = Simulation::new(ConsumerStrategy::DispatchToSingle, EVENTS);
    simulation.run_step(&Step::Connect(1));
    simulation.run_step(&Step::Read(5));
    // Inclusive: the first delivery is no retry.
    for _ in 0..=MAX_RETRIES {
        assert_eq!(simulation.outstanding[0].0, id_of(Origin::Source(0)));
        assert!(simulation.parking.is_empty());
        simulation.run_step(&Step::Nack(0, NackAction::Retry));
    }
    assert_eq!(simulation.parking, [id_of(Origin::Source(0))]);
    assert_eq!(simulation.outstanding[0].0, id_of(Origin::Source(1)));
}

#[test]
fn parking_message_holds_checkpoint_until_durable() {
    let mut simulation = Simulation::new(ConsumerStrategy::RoundRobin, EVENTS);
    simulation.run_step(&Step::Connect(10));
    simulation.run_step(&Step::Read(4));
    simulation.run_step(&Step::Nack(0, NackAction::Park));
    for _ in 0..3 {
        simulation.run_step(&Step::Ack(0));
    }
    // The parked stream could not be written. The message stays in `parking` until a later tick has
    // it written; otherwise its event would be lost.
    simulation.run_step(&Step::Parked(false));
    assert_eq!(simulation.group.final_checkpoint(), None);
    simulation.run_step(&Step::Tick(1_000));
    simulation.run_step(&Step::Parked(true));
    assert_eq!(simulation.group.final_checkpoint(), Some(4));
}

#[test]
fn full_consumer_loses_its_turn() {
    let mut simulation = Simulation::new(ConsumerStrategy::RoundRobin, EVENTS);
    for slots in [1, 3, 3] {
        simulation.run_step(&Step::Connect(slots));
    }
    simulation.run_step(&Step::Read(3));
    // The first consumer has a free slot again only after its turn has passed.
    simulation.run_step(&Step::Read(1));
    simulation.run_step(&Step::Ack(0));
    simulation.run_step(&Step::Read(2));
    let consumers: Vec<u64> = simulation.outstanding.iter().map(|delivery| delivery.1.0).collect();
    assert_eq!(consumers, [1, 2, 1, 2, 0]);
}

#[test]
fn stuck_consumer_does_not_hide_end_of_source() {
    let mut simulation = Simulation::new(ConsumerStrategy::RoundRobin, 3);
    simulation.run_step(&Step::Connect(2));
    simulation.run_step(&Step::Read(3));
    assert!(simulation.group.measure_counters(simulation.now).is_live);
    simulation.run_step(&Step::Commit(40));
    while simulation.group.wanted_events().is_some() {
        simulation.run_step(&Step::Read(1));
    }
    simulation.run_step(&Step::LookAhead(40));
    let counters = simulation.group.measure_counters(simulation.now);
    assert_eq!((counters.last_known, counters.n_buffered), (Some(42), BUFFER_SIZE));
    assert_eq!((counters.n_live_buffered, counters.is_live), (LIVE_BUFFER_SIZE, false));
    while let Some((_, consumer, _)) = simulation.outstanding.first().copied() {
        assert_eq!(consumer, ConsumerId(0));
        simulation.run_step(&Step::Ack(0));
        simulation.run_step(&Step::Read(10));
    }
    let counters = simulation.group.measure_counters(simulation.now);
    assert_eq!(
        (counters.n_live_buffered, counters.is_live),
        (0, true),
        "reading has reached the live events"
    );
}

#[test]
fn live_buffer_counts_events_after_they_are_done() {
    let mut simulation = Simulation::new(ConsumerStrategy::RoundRobin, 0);
    simulation.run_step(&Step::Connect(1));
    simulation.run_step(&Step::Read(1));
    simulation.run_step(&Step::Commit(5));
    for _ in 0..5 {
        simulation.run_step(&Step::Read(1));
        simulation.run_step(&Step::Ack(0));
    }
    let counters = simulation.group.measure_counters(simulation.now);
    assert_eq!((counters.n_buffered, counters.n_live_buffered), (0, 5));
}
