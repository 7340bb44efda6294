//! Random lives of a group: whatever happens, nothing is lost and nothing is delivered too often.

use proptest::prelude::*;

use super::{
    consumers::ConsumerId,
    machine::NackAction,
    machine_world::{BUFFER_SIZE, LIVE_BUFFER_SIZE, MAX_RETRIES, PLACES, Step, World, id_of},
    message::Origin,
    settings::Strategy as Sharing,
};

fn step() -> impl Strategy<Value = Step> {
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
        3 => (1..8_u64).prop_map(Step::Scout),
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

fn sharing() -> impl Strategy<Value = Sharing> {
    prop_oneof![
        Just(Sharing::RoundRobin),
        Just(Sharing::DispatchToSingle),
        Just(Sharing::Pinned),
        Just(Sharing::PinnedByCorrelation),
    ]
}

proptest! {
    #[test]
    fn every_event_is_done_in_the_end(
        sharing in sharing(),
        history in 0..PLACES,
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut world = World::new(sharing, history);
        for step in &steps {
            world.take(step);
        }
        world.finish();
        prop_assert_eq!(world.done.len() as u64, PLACES);
        prop_assert_eq!(world.stored_checkpoint, PLACES);
        prop_assert_eq!(world.truncated, world.parked.len() as u64, "all replays are done");
        prop_assert!(world.machine.is_done());
        let figures = world.machine.figures(world.now);
        prop_assert!(figures.is_live, "a group that has caught up is live");
    }

    #[test]
    fn one_consumer_without_failures_gets_the_order_of_the_source(slots in 1..30_usize) {
        let mut world = World::new(Sharing::RoundRobin, PLACES);
        world.take(&Step::Connect(slots));
        let mut delivered = Vec::new();
        while delivered.len() as u64 != PLACES {
            world.take(&Step::Read(3));
            while let Some((id, ..)) = world.outstanding.first().copied() {
                delivered.push(world.place_of(id));
                world.take(&Step::Ack(0));
            }
        }
        prop_assert!(delivered.is_sorted());
    }
}

#[test]
fn two_consumers_get_equal_shares() {
    let mut world = World::new(Sharing::RoundRobin, PLACES);
    world.take(&Step::Connect(10));
    world.take(&Step::Connect(10));
    world.take(&Step::Read(7));
    let first = world.outstanding.iter().filter(|it| it.1 == ConsumerId(0)).count();
    assert_eq!((first, world.outstanding.len()), (4, 7));
}

#[test]
fn a_retried_message_comes_before_new_ones_and_is_parked_after_its_last_retry() {
    let mut world = World::new(Sharing::DispatchToSingle, PLACES);
    world.take(&Step::Connect(1));
    world.take(&Step::Read(5));
    for _ in 0..=MAX_RETRIES {
        assert_eq!(world.outstanding[0].0, id_of(Origin::Source(0)));
        assert!(world.parking.is_empty());
        world.take(&Step::Nack(0, NackAction::Retry));
    }
    assert_eq!(world.parking, [id_of(Origin::Source(0))]);
    assert_eq!(world.outstanding[0].0, id_of(Origin::Source(1)));
}

#[test]
fn a_parked_message_holds_the_checkpoint_until_its_record_is_durable() {
    let mut world = World::new(Sharing::RoundRobin, PLACES);
    world.take(&Step::Connect(10));
    world.take(&Step::Read(4));
    world.take(&Step::Nack(0, NackAction::Park));
    for _ in 0..3 {
        world.take(&Step::Ack(0));
    }
    world.take(&Step::Parked(false));
    assert_eq!(world.machine.final_checkpoint(), None);
    world.take(&Step::Tick(1_000));
    world.take(&Step::Parked(true));
    assert_eq!(world.machine.final_checkpoint(), Some(4));
}

#[test]
fn a_full_consumer_loses_its_turn() {
    let mut world = World::new(Sharing::RoundRobin, PLACES);
    for slots in [1, 3, 3] {
        world.take(&Step::Connect(slots));
    }
    world.take(&Step::Read(3));
    // The first consumer has room again only after its turn has passed.
    world.take(&Step::Read(1));
    world.take(&Step::Ack(0));
    world.take(&Step::Read(2));
    let consumers: Vec<u64> = world.outstanding.iter().map(|it| it.1.0).collect();
    assert_eq!(consumers, [1, 2, 1, 2, 0]);
}

#[test]
fn a_stuck_consumer_hides_neither_the_end_nor_what_waits() {
    let mut world = World::new(Sharing::RoundRobin, 3);
    world.take(&Step::Connect(2));
    world.take(&Step::Read(3));
    assert!(world.machine.figures(world.now).is_live);
    world.take(&Step::Commit(40));
    while world.machine.wanted_events().is_some() {
        world.take(&Step::Read(1));
    }
    world.take(&Step::Scout(40));
    let figures = world.machine.figures(world.now);
    assert_eq!((figures.last_known, figures.buffered), (Some(42), BUFFER_SIZE));
    assert_eq!((figures.live_buffered, figures.is_live), (LIVE_BUFFER_SIZE, false));
    while let Some((_, consumer, _)) = world.outstanding.first().copied() {
        assert_eq!(consumer, ConsumerId(0));
        world.take(&Step::Ack(0));
        world.take(&Step::Read(10));
    }
    let figures = world.machine.figures(world.now);
    assert_eq!((figures.live_buffered, figures.is_live), (0, true), "it met the live events");
}

#[test]
fn live_events_stay_counted_after_they_are_done() {
    let mut world = World::new(Sharing::RoundRobin, 0);
    world.take(&Step::Connect(1));
    world.take(&Step::Read(1));
    world.take(&Step::Commit(5));
    for _ in 0..5 {
        world.take(&Step::Read(1));
        world.take(&Step::Ack(0));
    }
    let figures = world.machine.figures(world.now);
    assert_eq!((figures.buffered, figures.live_buffered), (0, 5));
}
