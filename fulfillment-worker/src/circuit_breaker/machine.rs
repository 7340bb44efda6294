//! The state machine of the circuit breaker. Pure: the time is an argument.

use std::time::Duration;

use domain::operations::BreakerPhase;
use tokio::time::Instant;

/// State of the breaker, and its transitions.
#[derive(Debug)]
pub(super) struct Machine {
    /// Number of failures in a row that open the breaker; `None`: it never opens.
    max_failures: Option<u32>,
    open_for: Duration,
    state: State,
    since: Instant,
    /// Counts the changes of state.
    generation: u64,
}

#[derive(Debug)]
enum State {
    Closed {
        /// Number of failures in a row.
        n_failures: u32,
        /// The earliest of the times until which these failures ask not to call the gateway.
        quiet_until: Option<Instant>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        is_probing: bool,
    },
}

/// Result of a call, as far as it concerns the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallResult {
    Response,
    /// The gateway could not be reached, or asks not to be called for a time.
    Failure {
        retry_after: Option<Duration>,
    },
}

/// Decision on a request to call the gateway.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The gateway may be called while the breaker is of this generation.
    Admitted { generation: u64, is_probe: bool },
    /// Not before this time.
    NotBefore(Instant),
    /// Not before the result of the running probe.
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

    /// Decides on a request to call the gateway. Begins a probe when the open time is over.
    pub(super) fn admit(&mut self, now: Instant) -> Decision {
        if let State::Open { until } = self.state {
            if now < until {
                return Decision::NotBefore(until);
            }
            self.enter(State::HalfOpen { is_probing: false }, now);
        }
        let generation = self.generation;
        match &mut self.state {
            State::HalfOpen { is_probing: true } => Decision::AfterProbe,
            State::HalfOpen { is_probing } => {
                *is_probing = true;
                Decision::Admitted { generation, is_probe: true }
            }
            State::Closed { .. } | State::Open { .. } => {
                Decision::Admitted { generation, is_probe: false }
            }
        }
    }

    /// Notes the result of a call. Ignores a call that was admitted in another state.
    ///
    /// A failure may ask for a longer wait than the breaker stays open. The breaker stays open for that
    /// longer time only if all failures that open it ask for it, or the probe does: a single one may
    /// concern its order only.
    pub(super) fn note_result(&mut self, generation: u64, result: CallResult, now: Instant) {
        if generation != self.generation {
            return;
        }
        let CallResult::Failure { retry_after } = result else {
            return match &mut self.state {
                // Without a new generation: calls that were admitted stay current.
                State::Closed { .. } => self.state = State::closed(),
                State::HalfOpen { .. } => self.enter(State::closed(), now),
                State::Open { .. } => {}
            };
        };
        let usual = now + self.open_for;
        let asked = retry_after.map_or(usual, |wait| usual.max(now + wait));
        match &mut self.state {
            State::Closed { n_failures, quiet_until } => {
                *n_failures = n_failures.saturating_add(1);
                let until = quiet_until.map_or(asked, |until| until.min(asked));
                *quiet_until = Some(until);
                if self.max_failures.is_some_and(|max| *n_failures >= max) {
                    self.enter(State::Open { until: until.max(usual) }, now);
                }
            }
            State::HalfOpen { .. } => self.enter(State::Open { until: asked }, now),
            State::Open { .. } => {}
        }
    }

    /// Returns an unused probe: the next request is admitted as one.
    pub(super) fn return_probe(&mut self, generation: u64) {
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
    /// Returns the closed state without failures.
    fn closed() -> Self {
        Self::Closed { n_failures: 0, quiet_until: None }
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

    const FAILURE: CallResult = CallResult::Failure { retry_after: None };

    fn fail(machine: &mut Machine, now: Instant) {
        fail_asking(machine, None, now);
    }

    fn fail_asking(machine: &mut Machine, seconds: Option<u64>, now: Instant) {
        let Decision::Admitted { generation, .. } = machine.admit(now) else {
            panic!("not admitted")
        };
        let retry_after = seconds.map(Duration::from_secs);
        machine.note_result(generation, CallResult::Failure { retry_after }, now);
    }

    #[test]
    fn shortest_wait_applies_if_every_failure_asks_for_one() {
        let (mut machine, now) = machine(3);
        fail_asking(&mut machine, Some(60), now);
        fail_asking(&mut machine, Some(30), now);
        fail_asking(&mut machine, Some(90), now);
        let until = now + Duration::from_secs(30);
        assert_eq!(machine.admit(now + OPEN_FOR), Decision::NotBefore(until));
        fail_asking(&mut machine, Some(3_600), until);
        let until = until + Duration::from_hours(1);
        assert_eq!(machine.admit(now + OPEN_FOR), Decision::NotBefore(until), "as the probe asked");
    }

    #[test]
    fn wait_that_only_some_failures_ask_for_is_ignored() {
        let (mut machine, now) = machine(2);
        fail_asking(&mut machine, Some(60), now);
        fail(&mut machine, now);
        assert_eq!(machine.admit(now), Decision::NotBefore(now + OPEN_FOR));
        let (mut machine, now) = self::machine(2);
        fail_asking(&mut machine, Some(60), now);
        machine.note_result(0, CallResult::Response, now);
        fail(&mut machine, now);
        assert_eq!(machine.phase(), BreakerPhase::Closed);
    }

    #[test]
    fn failures_in_a_row_open_the_breaker_and_a_response_resets_them() {
        let (mut machine, now) = machine(3);
        fail(&mut machine, now);
        fail(&mut machine, now);
        machine.note_result(0, CallResult::Response, now);
        fail(&mut machine, now);
        fail(&mut machine, now);
        assert_eq!(machine.phase(), BreakerPhase::Closed);
        fail(&mut machine, now);
        assert_eq!(machine.phase(), BreakerPhase::Open);
        assert_eq!(machine.admit(now), Decision::NotBefore(now + OPEN_FOR));
    }

    #[test]
    fn one_probe_decides_whether_the_breaker_closes() {
        let (mut machine, now) = machine(1);
        fail(&mut machine, now);
        let later = now + OPEN_FOR;
        assert_eq!(machine.admit(later), Decision::Admitted { generation: 2, is_probe: true });
        assert_eq!(machine.admit(later), Decision::AfterProbe);
        machine.note_result(2, FAILURE, later);
        assert_eq!(machine.phase(), BreakerPhase::Open);
        let latest = later + OPEN_FOR;
        assert_eq!(machine.admit(latest), Decision::Admitted { generation: 4, is_probe: true });
        machine.note_result(4, CallResult::Response, latest);
        assert_eq!(machine.phase(), BreakerPhase::Closed);
    }

    #[test]
    fn result_of_an_earlier_state_is_ignored() {
        let (mut machine, now) = machine(1);
        fail(&mut machine, now);
        let later = now + OPEN_FOR;
        machine.admit(later);
        machine.note_result(0, CallResult::Response, later);
        machine.note_result(0, FAILURE, later);
        assert_eq!(machine.phase(), BreakerPhase::HalfOpen);
    }

    #[test]
    fn returned_probe_is_given_to_the_next_request() {
        let (mut machine, now) = machine(1);
        fail(&mut machine, now);
        let later = now + OPEN_FOR;
        let admitted = machine.admit(later);
        machine.return_probe(2);
        assert_eq!(machine.admit(later), admitted);
    }

    #[test]
    fn breaker_without_a_limit_stays_closed() {
        let now = Instant::now();
        let mut machine = Machine::new(None, OPEN_FOR, now);
        for _ in 0..100 {
            fail(&mut machine, now);
        }
        assert_eq!(machine.phase(), BreakerPhase::Closed);
    }

    proptest! {
        /// For any sequence of requests and results: at most one probe is running, and after the open time
        /// a request is admitted.
        #[test]
        fn at_most_one_probe_runs_and_the_breaker_never_locks_up(
            steps in prop::collection::vec((0..4_u8, any::<bool>(), 0..4_u64), 1..200),
        ) {
            let (mut machine, mut now) = machine(2);
            let mut admitted: Vec<(u64, bool)> = Vec::new();
            for (step, has_failed, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 | 1 => if let Decision::Admitted { generation, is_probe } = machine.admit(now) {
                        let is_other = |it: &(u64, bool)| it.1 && it.0 == machine.generation();
                        prop_assert!(!(is_probe && admitted.iter().any(is_other)));
                        admitted.push((generation, is_probe));
                    },
                    2 => if let Some((generation, _)) = admitted.pop() {
                        let result = if has_failed { FAILURE } else { CallResult::Response };
                        machine.note_result(generation, result, now);
                    },
                    _ => if let Some((generation, _)) = admitted.pop() {
                        machine.return_probe(generation);
                    },
                }
            }
            for (generation, _) in admitted.drain(..) {
                machine.return_probe(generation);
            }
            let later = now + OPEN_FOR;
            let is_admitted = matches!(machine.admit(later), Decision::Admitted { .. });
            prop_assert!(is_admitted);
        }
    }
}
