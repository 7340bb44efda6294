//! Properties of every history that the rules allow.

use domain::order::{
    HistoryCheck, Invariant, OrderEvent, Stage, Status, decide, decode, encode, fold,
};
use proptest::prelude::*;
use testkit::histories::{ORDER, any_command, any_history};
use testkit::spec::recorded;

fn is_end(event: &OrderEvent) -> bool {
    matches!(event, OrderEvent::Fulfilled(_) | OrderEvent::Failed(_))
}

proptest! {
    #[test]
    fn order_is_fulfilled_at_most_once_and_last(history in any_history()) {
        let fulfilled = history.iter().position(|it| matches!(it, OrderEvent::Fulfilled(_)));
        if let Some(index) = fulfilled {
            prop_assert_eq!(index, history.len() - 1);
        }
    }

    #[test]
    fn only_a_redrive_or_a_discard_follows_an_end(history in any_history()) {
        for pair in history.windows(2) {
            let is_discard = matches!(pair[1], OrderEvent::Discarded(_));
            let is_redrive = matches!(pair[1], OrderEvent::Queued(_));
            if is_end(&pair[0]) {
                prop_assert!(is_redrive || is_discard, "{pair:?}");
            }
            if matches!(pair[0], OrderEvent::Discarded(_)) {
                prop_assert!(is_redrive, "{pair:?}");
            }
            if is_discard {
                let is_dead_letter = matches!(
                    &pair[0],
                    OrderEvent::Failed(it) if it.stage == Stage::DeadLetter
                );
                prop_assert!(is_dead_letter, "{pair:?}");
            }
        }
    }

    #[test]
    fn attempts_count_up_and_end_at_most_once(history in any_history()) {
        let mut attempt = 0;
        let mut n_ends = 0;
        for event in &history {
            if let OrderEvent::Queued(queued) = event {
                // The same attempt is queued again only before its end.
                let is_lost = queued.attempt == attempt && n_ends == 0;
                prop_assert!(is_lost || queued.attempt == attempt + 1, "{history:?}");
                (attempt, n_ends) = (queued.attempt, 0);
            } else if is_end(event) {
                n_ends += 1;
            }
            prop_assert!(n_ends <= 1, "{history:?}");
        }
    }

    #[test]
    fn decided_events_violate_no_invariant(history in any_history()) {
        let history = recorded(history);
        let mut check = HistoryCheck::new(ORDER);
        let violations: Vec<_> = history.iter().flat_map(|it| check.observe(it)).collect();
        prop_assert_eq!(&violations, &[], "{:?}", history);
        prop_assert_eq!(check.status(), fold(&history).map(|it| it.status));
        prop_assert_eq!(check.finish().is_some(), history.is_empty());
    }

    #[test]
    fn repeated_command_adds_no_event(mut history in any_history(), command in any_command()) {
        let state = fold(&recorded(history.clone()));
        history.extend(decide(state.as_ref(), command.clone()).unwrap_or_default());
        let state = fold(&recorded(history));
        let again = decide(state.as_ref(), command).unwrap_or_default();
        prop_assert_eq!(again, vec![]);
    }

    /// A recorded event is a fact: folding never fails, in any order of events.
    #[test]
    fn any_shuffled_history_folds_to_a_state(
        history in any_history().prop_shuffle(),
        length in 0..40_usize,
    ) {
        let prefix = recorded(history.into_iter().take(length));
        let state = fold(&prefix);
        prop_assert_eq!(state.is_some(), !prefix.is_empty());
        if let (Some(order), Some(last)) = (state, prefix.last()) {
            prop_assert_eq!(order.revision, last.revision);
            prop_assert_eq!(order.updated_at, last.recorded_at);
        }
    }

    #[test]
    fn status_matches_the_last_end_of_the_history(history in any_history()) {
        let Some(order) = fold(&recorded(history.clone())) else { return Ok(()) };
        let expected = match history.last() {
            Some(OrderEvent::Fulfilled(_)) => Status::Fulfilled,
            Some(OrderEvent::Failed(_) | OrderEvent::Discarded(_)) => Status::Failed,
            _ => Status::Processing,
        };
        prop_assert_eq!(order.status, expected);
    }

    #[test]
    fn encoded_event_decodes_to_the_same(history in any_history()) {
        for event in history {
            let encoded = encode(&event).unwrap();
            let bytes = encoded.data.get().as_bytes();
            let decoded = decode(encoded.event_type, encoded.schema_version, bytes).unwrap();
            prop_assert_eq!(decoded, event);
        }
    }

    /// Every content of a store can be checked.
    #[test]
    fn check_of_any_shuffle_ends_and_finds_gaps(
        history in any_history().prop_shuffle(),
        left_out in any::<prop::sample::Index>(),
    ) {
        let mut history = recorded(history);
        let mut check = HistoryCheck::new(ORDER);
        if history.len() > 1 {
            let index = left_out.index(history.len() - 1);
            history.remove(index);
            let n_gaps = history
                .iter()
                .flat_map(|it| check.observe(it))
                .filter(|it| it.invariant == Invariant::Causality)
                .count();
            prop_assert_eq!(n_gaps, 1);
        }
    }
}
