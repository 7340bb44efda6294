//! The log sink: lines are queued in memory and written by a dedicated thread. A reader of stderr that
//! stalls or dies costs log lines and nothing else.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::mutex::lock;

/// Maximum size of the queued lines, in bytes: about 3,000 lines.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;
/// Delay before the next attempt to write to a non-blocking file that is full.
const FULL_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Queues log lines for the writer thread. Never blocks on the reader and never fails.
#[derive(Debug, Default)]
pub(super) struct LogSink {
    queue: Mutex<Queue>,
    /// Signalled when a line is queued while the writer waits for one.
    line_queued: Condvar,
    /// Signalled when the writer has nothing left to write.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    n_bytes: usize,
    /// Whether the writer has written its last line and waits for another.
    is_writer_waiting: bool,
    n_dropped: u64,
    /// Number of dropped lines that were reported in a log line.
    n_reported: u64,
}

impl LogSink {
    /// Starts the thread that writes the queued lines to `output`. Calls `report_dropped` with the
    /// number of lines dropped since the last report, once `output` takes lines again.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        report_dropped: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let sink = Arc::new(Self::default());
        let writer = Arc::clone(&sink);
        // Detached: a write to a pipe without a reader may never return, so nothing can join it.
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write_lines(output, report_dropped))?;
        Ok(sink)
    }

    /// Queues a line. Drops and counts it if the queue is full.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = lock(&self.queue);
        if queue.n_bytes.saturating_add(line.len()) > MAX_QUEUED_BYTES {
            queue.n_dropped += 1;
            return;
        }
        queue.n_bytes += line.len();
        queue.lines.push_back(line.to_vec());
        if queue.is_writer_waiting {
            // Reset here and not by the writer: a flush before the writer runs must not return yet.
            queue.is_writer_waiting = false;
            self.line_queued.notify_one();
        }
    }

    /// Waits at most `timeout` until all queued lines are written. Returns whether they are.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let is_busy = |queue: &mut Queue| !queue.is_writer_waiting;
        let waited = self.drained.wait_timeout_while(lock(&self.queue), timeout, is_busy);
        let (_queue, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        !outcome.timed_out()
    }

    /// Returns the number of lines that were dropped.
    pub(super) fn n_dropped(&self) -> u64 {
        lock(&self.queue).n_dropped
    }

    fn write_lines(&self, mut output: impl Write, report_dropped: impl Fn(u64)) {
        loop {
            let line = self.take_next_line();
            // Without the lock: this write may block for ever.
            let written = write_whole(&mut output, &line);
            let n_unreported = self.note_written(written.is_ok());
            if n_unreported > 0 {
                // Logs, and so queues another line.
                report_dropped(n_unreported);
            }
        }
    }

    fn take_next_line(&self) -> Vec<u8> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.n_bytes -= line.len();
                return line;
            }
            queue.is_writer_waiting = true;
            self.drained.notify_all();
            let woken = self.line_queued.wait_while(queue, |queue| queue.is_writer_waiting);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a line that could not be written as dropped. After a written line, returns the number
    /// of dropped lines to report; 0 while the queue may have no room for the report.
    fn note_written(&self, is_written: bool) -> u64 {
        let mut queue = lock(&self.queue);
        if !is_written {
            queue.n_dropped += 1;
            return 0;
        }
        if queue.n_bytes > MAX_QUEUED_BYTES / 2 {
            return 0;
        }
        let n_unreported = queue.n_dropped - queue.n_reported;
        queue.n_reported = queue.n_dropped;
        n_unreported
    }
}

/// Each write is one formatted event, which is one line. Errors are counted and not returned: the
/// subscriber would write them to stderr, and panic if that fails.
impl Write for &LogSink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line. Waits for a file that is full, even if another process has made the shared file
/// non-blocking.
fn write_whole(output: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match output.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n_written) => line = line.get(n_written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(FULL_RETRY_DELAY);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, pipe};
    use std::sync::mpsc;

    use super::*;

    const TEST_TIMEOUT: Duration = Duration::from_secs(30);
    const LINE: &[u8; 1024] = &{
        let mut line = [b'.'; 1024];
        line[1023] = b'\n';
        line
    };

    /// Starts a sink that writes to a pipe. Its reports are lines `dropped N`.
    fn start_piped_sink() -> (Arc<LogSink>, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let (sender, receiver) = mpsc::channel::<Arc<LogSink>>();
        let sink = LogSink::start(writer, move |n_dropped| {
            let sink = receiver.recv().unwrap();
            sink.push(format!("dropped {n_dropped}\n").as_bytes());
        });
        let sink = sink.unwrap();
        sender.send(Arc::clone(&sink)).unwrap();
        (sink, reader)
    }

    #[test]
    fn flush_waits_until_all_lines_are_written() {
        let (sink, reader) = start_piped_sink();
        for number in 0..100 {
            sink.push(format!("{number}\n").as_bytes());
        }
        assert!(sink.flush(TEST_TIMEOUT));
        let lines: Vec<String> = BufReader::new(reader).lines().take(100).flatten().collect();
        assert_eq!(lines, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(sink.n_dropped(), 0);
    }

    #[test]
    fn stalled_reader_drops_lines_that_are_reported() {
        let (sink, reader) = start_piped_sink();
        // More than the queue and the pipe can hold.
        let n_pushed = 3 * MAX_QUEUED_BYTES / LINE.len();
        for _ in 0..n_pushed {
            sink.push(LINE);
        }
        let n_dropped = sink.n_dropped();
        assert!(n_dropped > 0);
        assert!(!sink.flush(Duration::from_millis(1)), "the pipe is full");

        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        let mut n_read = 0;
        let report = lines.inspect(|_| n_read += 1).find(|line| line.starts_with("dropped"));
        assert_eq!(report, Some(format!("dropped {n_dropped}")));
        // Every line before the report is one that was not dropped.
        assert!(n_read <= n_pushed - usize::try_from(n_dropped).unwrap() + 1);
    }

    #[test]
    fn dead_reader_drops_lines_that_are_counted() {
        let (sink, reader) = start_piped_sink();
        drop(reader);
        for _ in 0..10 {
            sink.push(LINE);
        }
        assert!(sink.flush(TEST_TIMEOUT), "failed writes end the wait too");
        assert_eq!(sink.n_dropped(), 10);
    }
}
