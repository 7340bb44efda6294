//! Log lines of the code under test, and the statements that it runs.

use std::error::Error;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use service_kit::error::Chain;
use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::system::{PATIENCE, POLL};

/// The lines of this thread since it began to listen. Statements of SQLite run on threads of their own
/// and are not recorded.
pub(crate) struct Journal {
    lines: Arc<Mutex<Vec<Line>>>,
    _listening: DefaultGuard,
}

/// A line: the message and the fields.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) text: String,
}

impl Journal {
    pub(crate) fn listen() -> Self {
        let lines = Arc::default();
        let listener = Listener { lines: Arc::clone(&lines) };
        Self { lines, _listening: tracing::subscriber::set_default(listener) }
    }

    /// Returns the lines so far that contain `text`.
    pub(crate) fn lines(&self, text: &str) -> Vec<Line> {
        locked(&self.lines).iter().filter(|line| line.text.contains(text)).cloned().collect()
    }

    /// Waits for `n_lines` lines that contain `text`.
    pub(crate) async fn heard(&self, n_lines: usize, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.lines(text).len() < n_lines {
            let all = || locked(&self.lines).clone();
            assert!(Instant::now() < deadline, "not {n_lines} times `{text}`: {:#?}", all());
            sleep(POLL).await;
        }
    }

    /// Clears the lines so far.
    pub(crate) fn clear(&self) {
        locked(&self.lines).clear();
    }
}

fn locked(lines: &Mutex<Vec<Line>>) -> MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Listener {
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ["projectors", "sqlx"].iter().any(|target| metadata.target().starts_with(target))
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let line = Line { level: *event.metadata().level(), text: text.0 };
        locked(&self.lines).push(line);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        write!(self.0, "{field}={} ", Chain(error)).unwrap();
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}
