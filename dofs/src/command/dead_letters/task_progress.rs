//! Progress of a redrive task: one line that is updated until the task ends or Ctrl-C is pressed.

use std::time::{Duration, Instant};

use api_types::{RedriveTask, RedriveTaskState};
use indicatif::ProgressBar;
use reqwest::StatusCode;
use tokio::time::sleep;

use crate::api_client::{ApiClient, Response};
use crate::cli::Global;
use crate::error::CliError;
use crate::output::{print_notice, progress_bar};
use crate::throughput::{PROGRESS_LINE_INTERVAL, Throughput, format_duration};

/// Time between two reads of the task.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of consecutive reads that may fail. The task runs in the API, so a failed read does
/// not affect it.
const MAX_FAILED_POLLS: u32 = 20;

/// Outcome of following a task.
pub(super) enum Followed {
    Ended(Response<RedriveTask>),
    /// The user pressed Ctrl-C; the task continues.
    Interrupted(Response<RedriveTask>),
}

/// Follows the task at `path` until it ends or the user presses Ctrl-C.
pub(super) async fn follow_task(
    client: &ApiClient,
    global: &Global,
    path: &str,
    mut task: Response<RedriveTask>,
) -> Result<Followed, CliError> {
    let mut progress = ProgressLine::new(global.quiet, &task.body);
    // One future for all iterations: a signal between two polls is not lost.
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut n_failed_polls = 0;
    if task.body.state == RedriveTaskState::Running {
        progress.show_task(&task.body);
    }
    while task.body.state == RedriveTaskState::Running {
        tokio::select! {
            _ = &mut interrupt => return Ok(Followed::Interrupted(task)),
            () = sleep(POLL_INTERVAL) => {}
        }
        let polled = tokio::select! {
            _ = &mut interrupt => return Ok(Followed::Interrupted(task)),
            polled = client.get::<RedriveTask>(path) => polled,
        };
        match polled {
            Err(error) if is_unavailable(&error) && n_failed_polls < MAX_FAILED_POLLS => {
                n_failed_polls += 1;
                progress.show_line("API is unavailable, retrying".to_owned());
            }
            polled => {
                n_failed_polls = 0;
                task = polled?;
                progress.show_task(&task.body);
            }
        }
    }
    Ok(Followed::Ended(task))
}

fn is_unavailable(error: &CliError) -> bool {
    matches!(error, CliError::Unreachable { .. })
        || matches!(error, CliError::Rejected { status: StatusCode::SERVICE_UNAVAILABLE, .. })
}

/// The progress line: updated in place on a terminal, printed at intervals elsewhere.
struct ProgressLine {
    bar: ProgressBar,
    is_quiet: bool,
    started: Instant,
    /// Orders that were done before the command started; they do not count for the rate.
    n_done_before: u64,
    last_printed: Option<Instant>,
}

impl ProgressLine {
    fn new(is_quiet: bool, task: &RedriveTask) -> Self {
        let bar = progress_bar(is_quiet, "{spinner} {msg}");
        let n_done_before = count_done(task);
        Self { bar, is_quiet, started: Instant::now(), n_done_before, last_printed: None }
    }

    fn show_task(&mut self, task: &RedriveTask) {
        let n_done = count_done(task).saturating_sub(self.n_done_before);
        let throughput = Throughput { n_done, elapsed: self.started.elapsed() };
        self.show_line(format_progress(task, throughput));
    }

    fn show_line(&mut self, line: String) {
        let is_due =
            || self.last_printed.is_none_or(|last| last.elapsed() >= PROGRESS_LINE_INTERVAL);
        if !self.bar.is_hidden() {
            self.bar.set_message(line);
            self.bar.tick();
        } else if !self.is_quiet && is_due() {
            print_notice(line);
            self.last_printed = Some(Instant::now());
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn count_done(task: &RedriveTask) -> u64 {
    task.redriven + task.skipped + task.failed
}

fn format_progress(task: &RedriveTask, throughput: Throughput) -> String {
    let RedriveTask { total, skipped, failed, waiting_for, .. } = task;
    let n_done = count_done(task);
    let progress = format!("redriving: {n_done} of {total} ({skipped} skipped, {failed} failed)");
    if let Some(cause) = waiting_for {
        return format!("{progress}, waiting: {cause}");
    }
    let time_left = throughput.estimate_time_left(total.saturating_sub(n_done));
    let time_left = time_left.map(|time| format!("about {} left", format_duration(time.as_secs())));
    let parts = [Some(progress), throughput.format_rate(), time_left];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn progress_line_shows_counts_rate_and_time_left() {
        let mut task: RedriveTask = serde_json::from_value(json!({
            "task_id": "018f2d6e-0000-7000-8000-000000000001",
            "kind": "redrive", "state": "running", "filter": {}, "rate_per_second": null,
            "reason": "", "actor": "ann", "started_at": "2026-01-02T03:00:00Z", "ended_at": null,
            "total": 812, "redriven": 100, "skipped": 15, "failed": 5,
            "waiting_for": null, "error": null,
        }))
        .unwrap();
        let after = |n_done, seconds| Throughput { n_done, elapsed: Duration::from_secs(seconds) };
        let line = "redriving: 120 of 812 (15 skipped, 5 failed)";
        assert_eq!(format_progress(&task, after(0, 0)), line);
        assert_eq!(format_progress(&task, after(0, 9)), line);
        assert_eq!(
            format_progress(&task, after(100, 2)),
            format!("{line}, 50.0 a second, about 13s left")
        );
        assert_eq!(
            format_progress(&task, after(1, 8)),
            format!("{line}, 0.1 a second, about 1h 32m left")
        );
        task.waiting_for = Some("the read model does not answer".to_owned());
        assert_eq!(
            format_progress(&task, after(100, 2)),
            format!("{line}, waiting: the read model does not answer")
        );
    }
}
