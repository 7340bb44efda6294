//! The state machine of the breaker. Pure: the time is an argument.

use std::time::Duration;

use domain::operations::BreakerPhase;
use tokio::time::Instant;

/// How the breaker stands, and what it does next.
#[derive(Debug)]
pub(super) struct Machine {
    /// So many failures in a row open it; `None`: nothing does.
    max_failures: Option<u32>,
    open_for: Duration,
    state: State,
    since: Instant,
    /// Counts the states that it has been in.
    generation: u64,
}

#[derive(Debug)]
enum State {
    Closed {
        /// In a row.
        n_failures: u32,
        /// The shortest time for which these failures ask to leave the gateway alone, each counted
        /// from when it came.
        alone_until: Option<Instant>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        is_probing: bool,
    },
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    Answer,
    /// The gateway could not be reached, or asks to be left alone for a time.
    Failure {
        retry_after: Option<Duration>,
    },
}

/// What somebody is told who wants to call the gateway.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admit {
    /// It may be called, by whoever is of this generation.
    Yes { generation: u64, is_probe: bool },
    /// Not before then.
    NotBefore(Instant),
    /// Not before it is known what came of the probe.
    AfterProbe,
}

impl Machine {
    pub(super) fn new(max_failures: Option<u32>, open_for: Duration, now: Instant) -> Self {
        let state = State::closed();
        Self { max_failures, open_for, state, since: now, generation: 0 }
    }

    pub(super) fn phase(&self) -> BreakerPhase {
        match self.state {
            State::Closed { .. } => BreakerPhase::Closed,
            State::Open { .. } => BreakerPhase::Open,
            State::HalfOpen { .. } => BreakerPhase::HalfOpen,
        }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Asks to call the gateway.
    pub(super) fn admit(&mut self, now: Instant) -> Admit {
        if let State::Open { until } = self.state {
            if now < until {
                return Admit::NotBefore(until);
            }
            self.enter(State::HalfOpen { is_probing: false }, now);
        }
        let generation = self.generation;
        match &mut self.state {
            State::HalfOpen { is_probing: true } => Admit::AfterProbe,
            State::HalfOpen { is_probing } => {
                *is_probing = true;
                Admit::Yes { generation, is_probe: true }
            }
            State::Closed { .. } | State::Open { .. } => Admit::Yes { generation, is_probe: false },
        }
    }

    /// Notes what came of a call. One that was admitted in another state says nothing about this.
    ///
    /// A failure that asks for a longer time than the breaker stays open is about one order, until as
    /// many in a row as open the breaker do so, or the probe does: then it is about the gateway.
    pub(super) fn note(&mut self, generation: u64, noted: Noted, now: Instant) {
        if generation != self.generation {
            return;
        }
        let Noted::Failure { retry_after } = noted else {
            return match &mut self.state {
                State::Closed { .. } => self.state = State::closed(),
                State::HalfOpen { .. } => self.enter(State::closed(), now),
                State::Open { .. } => {}
            };
        };
        let usual = now + self.open_for;
        let asked = retry_after.map_or(usual, |it| usual.max(now + it));
        match &mut self.state {
            State::Closed { n_failures, alone_until } => {
                *n_failures = n_failures.saturating_add(1);
                let until = alone_until.map_or(asked, |until| until.min(asked));
                *alone_until = Some(until);
                if self.max_failures.is_some_and(|max| *n_failures >= max) {
                    self.enter(State::Open { until: until.max(usual) }, now);
                }
            }
            State::HalfOpen { .. } => self.enter(State::Open { until: asked }, now),
            State::Open { .. } => {}
        }
    }

    /// The probe of that generation was not made.
    pub(super) fn give_back(&mut self, generation: u64) {
        if let State::HalfOpen { is_probing } = &mut self.state
            && generation == self.generation
        {
            *is_probing = false;
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.generation += 1;
    }
}

impl State {
    /// Closed, without a failure.
    fn closed() -> Self {
        Self::Closed { n_failures: 0, alone_until: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(5);

    fn machine(max_failures: u32) -> (Machine, Instant) {
        let now = Instant::now();
        (Machine::new(Some(max_failures), OPEN_FOR, now), now)
    }

    const FAILURE: Noted = Noted::Failure { retry_after: None };

    fn fail(machine: &mut Machine, now: Instant) {
        fail_asking(machine, None, now);
    }

    fn fail_asking(machine: &mut Machine, seconds: Option<u64>, now: Instant) {
        let Admit::Yes { generation, .. } = machine.admit(now) else { panic!("not admitted") };
        let retry_after = seconds.map(Duration::from_secs);
        machine.note(generation, Noted::Failure { retry_after }, now);
    }

    #[test]
    fn gateway_that_asks_for_time_each_time_is_left_alone_for_the_shortest() {
        let (mut machine, now) = machine(3);
        fail_asking(&mut machine, Some(60), now);
        fail_asking(&mut machine, Some(30), now);
        fail_asking(&mut machine, Some(90), now);
        let until = now + Duration::from_secs(30);
        assert_eq!(machine.admit(now + OPEN_FOR), Admit::NotBefore(until));
        fail_asking(&mut machine, Some(3_600), until);
        let until = until + Duration::from_hours(1);
        assert_eq!(machine.admit(now + OPEN_FOR), Admit::NotBefore(until), "the probe's word");
    }

    #[test]
    fn time_that_not_every_failure_asks_for_is_no_reason_to_leave_the_gateway_alone() {
        let (mut machine, now) = machine(2);
        fail_asking(&mut machine, Some(60), now);
        fail(&mut machine, now);
        assert_eq!(machine.admit(now), Admit::NotBefore(now + OPEN_FOR));
        let (mut machine, now) = self::machine(2);
        fail_asking(&mut machine, Some(60), now);
        machine.note(0, Noted::Answer, now);
        fail(&mut machine, now);
        assert_eq!(machine.phase(), BreakerPhase::Closed);
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_begins_the_row_anew() {
        let (mut machine, now) = machine(3);
        fail(&mut machine, now);
        fail(&mut machine, now);
        machine.note(0, Noted::Answer, now);
        fail(&mut machine, now);
        fail(&mut machine, now);
        assert_eq!(machine.phase(), BreakerPhase::Closed);
        fail(&mut machine, now);
        assert_eq!(machine.phase(), BreakerPhase::Open);
        assert_eq!(machine.admit(now), Admit::NotBefore(now + OPEN_FOR));
    }

    #[test]
    fn one_probe_decides_whether_it_closes() {
        let (mut machine, now) = machine(1);
        fail(&mut machine, now);
        let later = now + OPEN_FOR;
        assert_eq!(machine.admit(later), Admit::Yes { generation: 2, is_probe: true });
        assert_eq!(machine.admit(later), Admit::AfterProbe);
        machine.note(2, FAILURE, later);
        assert_eq!(machine.phase(), BreakerPhase::Open);
        let latest = later + OPEN_FOR;
        assert_eq!(machine.admit(latest), Admit::Yes { generation: 4, is_probe: true });
        machine.note(4, Noted::Answer, latest);
        assert_eq!(machine.phase(), BreakerPhase::Closed);
    }

    #[test]
    fn call_that_began_before_says_nothing_about_now() {
        let (mut machine, now) = machine(1);
        fail(&mut machine, now);
        let later = now + OPEN_FOR;
        machine.admit(later);
        machine.note(0, Noted::Answer, later);
        machine.note(0, FAILURE, later);
        assert_eq!(machine.phase(), BreakerPhase::HalfOpen);
    }

    #[test]
    fn probe_that_was_not_made_may_be_made_by_another() {
        let (mut machine, now) = machine(1);
        fail(&mut machine, now);
        let later = now + OPEN_FOR;
        let admitted = machine.admit(later);
        machine.give_back(2);
        assert_eq!(machine.admit(later), admitted);
    }

    #[test]
    fn without_a_limit_it_stays_closed() {
        let now = Instant::now();
        let mut machine = Machine::new(None, OPEN_FOR, now);
        for _ in 0..100 {
            fail(&mut machine, now);
        }
        assert_eq!(machine.phase(), BreakerPhase::Closed);
    }

    proptest! {
        /// Whatever is asked and noted, there is never more than one probe, and time opens the way.
        #[test]
        fn there_is_one_probe_at_a_time_and_always_a_way_out(
            steps in prop::collection::vec((0..4_u8, any::<bool>(), 0..4_u64), 1..200),
        ) {
            let (mut machine, mut now) = machine(2);
            let mut admitted: Vec<(u64, bool)> = Vec::new();
            for (step, has_failed, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 | 1 => if let Admit::Yes { generation, is_probe } = machine.admit(now) {
                        let is_other = |it: &(u64, bool)| it.1 && it.0 == machine.generation();
                        prop_assert!(!(is_probe && admitted.iter().any(is_other)));
                        admitted.push((generation, is_probe));
                    },
                    2 => if let Some((generation, _)) = admitted.pop() {
                        let noted = if has_failed { FAILURE } else { Noted::Answer };
                        machine.note(generation, noted, now);
                    },
                    _ => if let Some((generation, _)) = admitted.pop() {
                        machine.give_back(generation);
                    },
                }
            }
            for (generation, _) in admitted.drain(..) {
                machine.give_back(generation);
            }
            let later = now + OPEN_FOR;
            let is_admitted = matches!(machine.admit(later), Admit::Yes { .. });
            prop_assert!(is_admitted);
        }
    }
}
