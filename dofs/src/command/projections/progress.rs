//! How far a rebuild or a verification is: a bar on a terminal, a line now and then elsewhere.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use projectors::{Phase, Progress};

use crate::cli::Global;
use crate::output::print_notice;
use crate::throughput::{PROGRESS_LINE_INTERVAL, Throughput, format_duration};

/// Shows each phase with what is done of how much, the rate, and how long the rest takes.
pub(super) struct Display {
    bar: ProgressBar,
    is_quiet: bool,
    current: Option<Current>,
}

/// The phase that is shown.
struct Current {
    phase: Phase,
    began: Instant,
    /// What was done when it began: it says nothing about the rate.
    n_done_before: u64,
    last_line: Instant,
}

impl Display {
    pub(super) fn new(global: &Global) -> Self {
        let bar = if global.quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}");
        let bar = style.map_or(bar.clone(), |style| bar.with_style(style));
        Self { bar, is_quiet: global.quiet, current: None }
    }

    /// What prints beside the bar.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    pub(super) fn show(&mut self, progress: Progress) {
        let now = Instant::now();
        let current = match self.current.take() {
            Some(current) if current.phase == progress.phase => current,
            _ => {
                let (phase, n_done_before) = (progress.phase, progress.n_done);
                self.tell(&line(&progress, None));
                Current { phase, began: now, n_done_before, last_line: now }
            }
        };
        let n_done = progress.n_done.saturating_sub(current.n_done_before);
        let line = line(&progress, Some(Throughput { n_done, elapsed: current.began.elapsed() }));
        let current = if current.last_line.elapsed() >= PROGRESS_LINE_INTERVAL {
            self.tell(&line);
            Current { last_line: now, ..current }
        } else {
            current
        };
        if let Some(n_total) = progress.n_total {
            self.bar.set_length(n_total.max(1));
        }
        self.bar.set_position(progress.n_done);
        self.bar.set_message(line);
        self.current = Some(current);
    }

    /// Prints a line where there is no bar.
    fn tell(&self, line: &str) {
        if self.bar.is_hidden() && !self.is_quiet {
            print_notice(line);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn line(progress: &Progress, pace: Option<Throughput>) -> String {
    let Progress { phase, n_done, n_total } = *progress;
    let of = match n_total {
        // Nobody has counted the events of a log that is being read.
        Some(n_total) if is_estimated(phase) => format!(" of about {n_total}"),
        Some(n_total) => format!(" of {n_total}"),
        None => String::new(),
    };
    let mut parts = vec![format!("{}: {n_done}{of} {}", phase.name(), phase.unit())];
    parts.extend(pace.and_then(Throughput::format_rate));
    let n_left = n_total.map(|n_total| n_total.saturating_sub(n_done)).filter(|n_left| *n_left > 0);
    let left = pace.zip(n_left).and_then(|(pace, n_left)| pace.estimate_time_left(n_left));
    parts.extend(left.map(|left| format!("about {} left", format_duration(left.as_secs()))));
    parts.join(", ")
}

fn is_estimated(phase: Phase) -> bool {
    match phase {
        Phase::Replay | Phase::CatchUp => true,
        Phase::Compare | Phase::Judge | Phase::Indexes | Phase::Swap => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn line_says_phase_done_total_rate_and_time_left() {
        let pace =
            |n_done, seconds| Some(Throughput { n_done, elapsed: Duration::from_secs(seconds) });
        let progress = |phase, n_done, n_total| Progress { phase, n_done, n_total };
        let replay = progress(Phase::Replay, 12_000, Some(29_240));
        assert_eq!(line(&replay, None), "replay: 12000 of about 29240 events");
        assert_eq!(
            line(&replay, pace(2_000, 1)),
            "replay: 12000 of about 29240 events, 2000.0 a second, about 8s left"
        );
        let begun = progress(Phase::Replay, 0, None);
        assert_eq!(line(&begun, pace(0, 3)), "replay: 0 events");
        let judge = progress(Phase::Judge, 40, Some(40));
        assert_eq!(line(&judge, pace(40, 2)), "judge: 40 of 40 orders, 20.0 a second");
        let swap = progress(Phase::Swap, 0, Some(1));
        assert_eq!(line(&swap, pace(0, 0)), "swap: 0 of 1 steps");
    }
}
