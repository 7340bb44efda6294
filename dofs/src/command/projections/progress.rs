//! Progress of a rebuild or a verification: a bar on a terminal, lines at intervals elsewhere.

use std::time::Instant;

use indicatif::ProgressBar;
use projectors::{Phase, Progress};

use crate::cli::Global;
use crate::output::{print_notice, progress_bar};
use crate::throughput::{PROGRESS_LINE_INTERVAL, Throughput, format_duration};

/// Shows each phase with its progress, its rate and its remaining time.
pub(super) struct ProgressDisplay {
    bar: ProgressBar,
    is_quiet: bool,
    current: Option<Current>,
}

/// The phase that is shown.
struct Current {
    phase: Phase,
    began: Instant,
    /// Work that was done before the phase was shown; not part of the rate.
    n_done_before: u64,
    last_line: Instant,
}

impl ProgressDisplay {
    pub(super) fn new(global: &Global) -> Self {
        let bar = progress_bar(global.quiet, "{bar:30} {percent:>3}%  {msg}");
        Self { bar, is_quiet: global.quiet, current: None }
    }

    /// Returns a handle with which other lines are printed above the bar.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    pub(super) fn show(&mut self, progress: Progress) {
        let now = Instant::now();
        let current = match self.current.take() {
            Some(current) if current.phase == progress.phase => current,
            _ => {
                let (phase, n_done_before) = (progress.phase, progress.n_done);
                self.print_line(&format_progress(&progress, None));
                Current { phase, began: now, n_done_before, last_line: now }
            }
        };
        let n_done = progress.n_done.saturating_sub(current.n_done_before);
        let throughput = Throughput { n_done, elapsed: current.began.elapsed() };
        let line = format_progress(&progress, Some(throughput));
        let current = if current.last_line.elapsed() >= PROGRESS_LINE_INTERVAL {
            self.print_line(&line);
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
    fn print_line(&self, line: &str) {
        if self.bar.is_hidden() && !self.is_quiet {
            print_notice(line);
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn format_progress(progress: &Progress, throughput: Option<Throughput>) -> String {
    let Progress { phase, n_done, n_total } = *progress;
    let of = match n_total {
        // Positions in the log do not count events.
        Some(n_total) if is_estimated(phase) => format!(" of about {n_total}"),
        Some(n_total) => format!(" of {n_total}"),
        None => String::new(),
    };
    let mut parts = vec![format!("{}: {n_done}{of} {}", phase.name(), phase.unit())];
    parts.extend(throughput.and_then(Throughput::format_rate));
    let n_left = n_total.map(|n_total| n_total.saturating_sub(n_done)).filter(|n_left| *n_left > 0);
    let left = throughput.zip(n_left);
    let left = left.and_then(|(throughput, n_left)| throughput.estimate_time_left(n_left));
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
        assert_eq!(format_progress(&replay, None), "replay: 12000 of about 29240 events");
        assert_eq!(
            format_progress(&replay, pace(2_000, 1)),
            "replay: 12000 of about 29240 events, 2000.0 a second, about 8s left"
        );
        let begun = progress(Phase::Replay, 0, None);
        assert_eq!(format_progress(&begun, pace(0, 3)), "replay: 0 events");
        let judge = progress(Phase::Judge, 40, Some(40));
        assert_eq!(format_progress(&judge, pace(40, 2)), "judge: 40 of 40 orders, 20.0 a second");
        let swap = progress(Phase::Swap, 0, Some(1));
        assert_eq!(format_progress(&swap, pace(0, 0)), "swap: 0 of 1 steps");
    }
}
