//! Compares a server with the recording of a real EventStoreDB: `scripts/compare-event-store`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::{
    collections::VecDeque,
    error::Error,
    io::{IsTerminal, stderr},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Parser;
use conformance::replay::{
    Difference, KnownDifferences, RECORDED_VERSION, Scenario, connect, known_differences_file,
    load_scenarios, recording_folder, replay_scenario,
};
use regex::Regex;
use tokio::task::JoinSet;

/// Number of concurrent scenarios. Scenarios that read the whole store run alone afterwards.
const MAX_CONCURRENT: usize = 8;

/// Exit codes for differences without a known reason and for an unreachable server, as in `dofs`.
const DIFFERENT: u8 = 3;
const UNREACHABLE: u8 = 7;

/// Compare a server's answers with those of the recorded EventStoreDB
///
/// The server must run without TLS. No other client should use it meanwhile, because some scenarios
/// read `$all`. The scenarios write streams and groups with random names, and delete the groups.
///
/// Exit code: 0 if every difference has a known reason, 3 if not, 7 if the server is unreachable.
#[derive(Debug, Parser)]
#[command(name = "compare-event-store")]
struct Arguments {
    /// Address of the server, for example 127.0.0.1:2113
    address: String,
    /// Run only scenarios whose name matches this regular expression, for example '^groups/'
    #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
    only: Regex,
    /// Also print the differences that have a known reason
    #[arg(long)]
    all: bool,
}

type ScenarioDifferences = Vec<(String, Vec<Difference>)>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = connect(&arguments.address).await {
        let cause = root_cause(&error);
        let address = &arguments.address;
        eprintln!(
            "error: event store at {address} is unreachable: {cause}; start it, or correct the address"
        );
        return ExitCode::from(UNREACHABLE);
    }
    match compare_server(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: the comparison failed: {}", root_cause(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn compare_server(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let known = KnownDifferences::load(&known_differences_file())?;
    let mut scenarios = load_scenarios(&recording_folder())?;
    scenarios.retain(|scenario| arguments.only.is_match(&scenario.name));
    let count = scenarios.len();
    let (alone, together): (Vec<_>, Vec<_>) =
        scenarios.into_iter().partition(Scenario::needs_server_alone);
    // Scenarios that read `$all` would see the events of concurrent scenarios. They run one by one.
    let mut found = replay_all(together, MAX_CONCURRENT, arguments).await?;
    found.extend(replay_all(alone, 1, arguments).await?);
    found.sort_by(|(one, _), (other, _)| one.cmp(other));

    let (mut explained, mut differing) = (0, 0);
    for (scenario, differences) in &found {
        let unexplained = known.find_unexplained(scenario, differences);
        if !unexplained.is_empty() {
            differing += 1;
            println!("different: {scenario}");
            for difference in unexplained {
                println!("{difference}");
            }
        } else if !differences.is_empty() {
            explained += 1;
            if arguments.all {
                println!("known: {scenario}");
                for difference in differences {
                    println!("{difference}");
                }
            }
        }
    }
    let equal = count - explained - differing;
    println!("{count} scenarios of {RECORDED_VERSION} against {}:", arguments.address);
    println!("{equal} equal, {explained} different for a known reason, {differing} different");
    Ok(ExitCode::from(if differing == 0 { 0 } else { DIFFERENT }))
}

/// Runs scenarios and returns the differences of each.
async fn replay_all(
    scenarios: Vec<Scenario>,
    n_concurrent: usize,
    arguments: &Arguments,
) -> Result<ScenarioDifferences, Box<dyn Error>> {
    let queue = Arc::new(Mutex::new(VecDeque::from(scenarios)));
    let mut workers = JoinSet::new();
    for _ in 0..n_concurrent {
        let (queue, address) = (Arc::clone(&queue), arguments.address.clone());
        workers.spawn(async move {
            let mut found = Vec::new();
            loop {
                // A statement of its own, which releases the lock before the replay.
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(scenario) = next else { return Ok(found) };
                if stderr().is_terminal() {
                    eprint!("\r\x1b[K{}", scenario.name);
                }
                found.push((scenario.name.clone(), replay_scenario(&scenario, &address).await?));
            }
        });
    }
    let mut found = Vec::new();
    for worker_found in workers.join_all().await {
        let worker_found: Result<ScenarioDifferences, tonic::transport::Error> = worker_found;
        found.extend(worker_found?);
    }
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    Ok(found)
}

fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
