//! Following a task that the API runs: a line that says how far it is, until it ends or Ctrl-C.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use crate::cli::Global;
use crate::client::ApiClient;
use crate::error::CliError;
use crate::output::{cell, say};
use crate::pace::{LINE_EVERY, Pace, duration};

/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// How many looks in a row may find nobody. The task does not need us.
const MAX_MISSED: u32 = 20;

/// How following ended.
pub(super) enum Followed {
    /// The task is over.
    Ended(Value),
    /// Somebody here has seen enough; the task goes on.
    Left(Value),
}

/// Follows a task of the collection at `path`.
pub(super) async fn follow(
    client: &ApiClient,
    global: &Global,
    path: &str,
    mut task: Value,
) -> Result<Followed, CliError> {
    let path = format!("{path}/{}", cell(&task["task_id"]));
    let mut progress = Progress::new(global.quiet, &task);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut n_missed = 0;
    if task["state"] == "running" {
        progress.say(state_line(&task, progress.pace(&task)));
    }
    while task["state"] == "running" {
        tokio::select! {
            _ = &mut interrupt => return Ok(Followed::Left(task)),
            () = sleep(POLL) => {}
        }
        let looked = tokio::select! {
            _ = &mut interrupt => return Ok(Followed::Left(task)),
            looked = client.ask(Method::GET, &path, &[]) => looked,
        };
        let is_away = match &looked {
            Ok(answer) => answer.is_unavailable(),
            Err(error) => matches!(error, CliError::Unreachable { .. }),
        };
        if is_away && n_missed < MAX_MISSED {
            n_missed += 1;
            progress.say("no answer, asking again".to_owned());
        } else {
            n_missed = 0;
            task = looked?.accepted()?;
            progress.say(state_line(&task, progress.pace(&task)));
        }
    }
    Ok(Followed::Ended(task))
}

/// A line that says how far the task is: written over on a terminal, now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    is_quiet: bool,
    began: Instant,
    n_done_before: u64,
    last_line: Option<Instant>,
}

impl Progress {
    fn new(is_quiet: bool, task: &Value) -> Self {
        let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
        let style = ProgressStyle::with_template("{spinner} {msg}");
        let bar = style.map_or(bar.clone(), |it| bar.with_style(it));
        let n_done_before = n_done(task);
        Self { bar, is_quiet, began: Instant::now(), n_done_before, last_line: None }
    }

    fn pace(&self, task: &Value) -> Pace {
        let n_done = n_done(task).saturating_sub(self.n_done_before);
        Pace { n_done, took: self.began.elapsed() }
    }

    fn say(&mut self, line: String) {
        if !self.bar.is_hidden() {
            self.bar.set_message(line);
            self.bar.tick();
        } else if !self.is_quiet && self.last_line.is_none_or(|it| it.elapsed() >= LINE_EVERY) {
            say(line);
            self.last_line = Some(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn n_done(task: &Value) -> u64 {
    ["redriven", "skipped", "failed"].iter().filter_map(|it| task[it].as_u64()).sum()
}

fn state_line(task: &Value, pace: Pace) -> String {
    let done = n_done(task);
    let of = task["total"].as_u64();
    let mut parts = vec![format!(
        "redriving: {done}{} ({} skipped, {} failed)",
        of.map_or_else(String::new, |it| format!(" of {it}")),
        cell(&task["skipped"]),
        cell(&task["failed"]),
    )];
    if let Some(away) = task["waiting_for"].as_str() {
        parts.push(format!("waiting: {away}"));
        return parts.join(", ");
    }
    parts.extend(pace.per_second());
    let left = of.and_then(|it| pace.time_for(it.saturating_sub(done)));
    parts.extend(left.map(|it| format!("about {} left", duration(it.as_secs()))));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn line_says_how_far_how_fast_and_how_long() {
        let mut task = json!({"total": 812, "redriven": 100, "skipped": 15, "failed": 5});
        let pace = |n_done, seconds| Pace { n_done, took: Duration::from_secs(seconds) };
        let line = "redriving: 120 of 812 (15 skipped, 5 failed)";
        assert_eq!(state_line(&task, pace(0, 0)), line);
        assert_eq!(state_line(&task, pace(0, 9)), line);
        assert_eq!(
            state_line(&task, pace(100, 2)),
            format!("{line}, 50.0 a second, about 13s left")
        );
        assert_eq!(
            state_line(&task, pace(1, 8)),
            format!("{line}, 0.1 a second, about 1h 32m left")
        );
        task["waiting_for"] = "the read model does not answer".into();
        assert_eq!(
            state_line(&task, pace(100, 2)),
            format!("{line}, waiting: the read model does not answer")
        );
        task["waiting_for"] = Value::Null;
        // Nobody has counted them yet.
        task["total"] = Value::Null;
        let line = state_line(&task, pace(120, 2));
        assert_eq!(line, "redriving: 120 (15 skipped, 5 failed), 60.0 a second");
    }
}
