//! A piece of work in its own process, which reports its costs at the end.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use event_log::EventLog;
use projectors::{
    Begin, Pace, Projector, ProjectorConfig, ReadModel, Rebuild, Repair, SwapAtEnd, Verification,
    open,
};
use testkit::store::{clock, connect};
use tokio_util::sync::CancellationToken;

/// The default of the command.
const REBUILD_BATCH: u64 = 20_000;
/// Larger than the default: a projector that catches up writes more at a time.
const PROJECTOR: ProjectorConfig =
    ProjectorConfig { batch_size: 2_000, batch_ms: 50, verify_interval_ms: 0 };
/// Delay between two reads of the checkpoint.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// The live projector, from nothing to the newest event.
    CatchUp,
    Rebuild,
    Verify,
    /// The live projector, until it is stopped.
    Follow,
}

impl Work {
    /// Work that ends by itself, in the order of its needs.
    pub(crate) const ALL: [Self; 3] = [Self::CatchUp, Self::Rebuild, Self::Verify];

    fn name(self) -> &'static str {
        match self {
            Self::CatchUp => "catch-up",
            Self::Rebuild => "rebuild",
            Self::Verify => "verify",
            Self::Follow => "follow",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain([Self::Follow]);
        all.into_iter().find(|work| work.name() == name)
    }
}

/// A working process.
pub(crate) struct Working(Child);

/// Starts the process.
pub(crate) fn start(work: Work, event_store: &str, read_model: &str) -> Working {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([work.name(), event_store, read_model]).stdout(Stdio::piped());
    Working(command.spawn().unwrap())
}

impl Working {
    /// Waits for the end of the process, and returns its output.
    pub(crate) fn finished(self) -> String {
        let output = tokio::task::block_in_place(|| self.0.wait_with_output().unwrap());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn stop(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Does the work in this process.
pub(crate) async fn run(work: Work, addresses: &[String]) {
    let [event_store, read_model] = addresses else { panic!("two addresses: {addresses:?}") };
    let (log, store) = (connect(event_store).unwrap(), open(read_model).unwrap());
    let started = Instant::now();
    let n_events = match work {
        Work::CatchUp => catch_up(log, &store, read_model).await,
        Work::Rebuild => rebuild(&log, &store).await,
        Work::Verify => verify(&log, &store).await,
        Work::Follow => {
            let projector = Projector::new(log, store, PROJECTOR, clock());
            projector.run(CancellationToken::new()).await.unwrap();
            return;
        }
    };
    let (name, seconds) = (work.name(), started.elapsed().as_secs_f64());
    let rate = super::per_second(n_events, started.elapsed());
    let (memory, processor) = (peak_mebibytes(), processor_seconds());
    println!(
        "{name:8} {n_events} events in {seconds:.2} s: {rate} events/s; {processor:.2} s of this \
         process's processor time, {memory} MiB at most"
    );
}

async fn catch_up(log: EventLog, store: &ReadModel, read_model: &str) -> u64 {
    let head = log.store().head().await.unwrap();
    let stop = CancellationToken::new();
    let own = open(read_model).unwrap();
    let mut projector = tokio::task::JoinSet::new();
    projector.spawn(Projector::new(log, own, PROJECTOR, clock()).run(stop.clone()));
    loop {
        let checkpoint = store.checkpoint().await.unwrap();
        if checkpoint.position >= head {
            stop.cancel();
            projector.join_next().await.unwrap().unwrap().unwrap();
            return checkpoint.events_applied;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn rebuild(log: &EventLog, store: &ReadModel) -> u64 {
    let clock = clock();
    let (begin, at_end, batch_size) = (Begin::Anew, SwapAtEnd::Yes, REBUILD_BATCH);
    let work = Rebuild { log, store, clock: &clock, begin, at_end, batch_size };
    let rebuilt = work.run(&mut |_| {}, &mut |finding| panic!("{finding:?}")).await.unwrap();
    assert!(rebuilt.is_live, "{rebuilt:?}");
    rebuilt.n_events
}

async fn verify(log: &EventLog, store: &ReadModel) -> u64 {
    let (clock, scratch) = (clock(), tempfile::tempdir().unwrap());
    let (scratch, repair) = (scratch.path(), Repair::Never);
    let verification =
        Verification { log, store, clock: &clock, scratch, repair, pace: Pace::Full };
    let verified =
        verification.verify_all(&mut |_| {}, &mut |finding| panic!("{finding:?}")).await.unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    verified.n_events
}

/// Returns the peak memory of this process.
fn peak_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1_024
}

/// Returns the processor time of this process so far.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks = after_name.split_whitespace().skip(11).take(2);
    // Linux counts in hundredths of a second.
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}
