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
    load_scenarios, recording_folder, replay,
};
use regex::Regex;
use tokio::task::JoinSet;

/// Scenarios that are carried out side by side. Those that see the whole store come after them.
const AT_ONCE: usize = 8;

/// Exit code if answers differ without an explanation, and if the server is not there: the same as
/// those of `dofs`.
const DIFFERENT: u8 = 3;
const UNREACHABLE: u8 = 7;

/// Compare a server's answers with those of the recorded EventStoreDB
///
/// The server must speak without TLS, and nothing else should use it meanwhile: some scenarios read
/// `$all`. Streams and groups with names of their own are written; the groups are deleted.
///
/// Exit code: 0 if nothing differs without an explanation, 3 if something does, 7 if the server
/// cannot be reached.
#[derive(Debug, Parser)]
#[command(name = "compare-event-store")]
struct Arguments {
    /// Address of the server, as in 127.0.0.1:2113
    address: String,
    /// Only scenarios whose name matches this regular expression, as in '^groups/'
    #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
    only: Regex,
    /// Also print the differences that have a known reason
    #[arg(long)]
    all: bool,
}

type Found = Vec<(String, Vec<Difference>)>;

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
    match compare(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: the comparison failed: {}", root_cause(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn compare(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let known = KnownDifferences::load(&known_differences_file())?;
    let mut scenarios = load_scenarios(&recording_folder())?;
    scenarios.retain(|scenario| arguments.only.is_match(&scenario.name));
    let count = scenarios.len();
    let (alone, together): (Vec<_>, Vec<_>) =
        scenarios.into_iter().partition(Scenario::needs_server_alone);
    let mut found = replay_all(together, AT_ONCE, arguments).await?;
    found.extend(replay_all(alone, 1, arguments).await?);
    found.sort_by(|(one, _), (other, _)| one.cmp(other));

    let (mut explained, mut differing) = (0, 0);
    for (scenario, differences) in &found {
        let unexplained = known.unexplained(scenario, differences);
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

/// Carries out scenarios, so many at once, and returns what differs in each.
async fn replay_all(
    scenarios: Vec<Scenario>,
    at_once: usize,
    arguments: &Arguments,
) -> Result<Found, Box<dyn Error>> {
    let queue = Arc::new(Mutex::new(VecDeque::from(scenarios)));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (queue, address) = (Arc::clone(&queue), arguments.address.clone());
        workers.spawn(async move {
            let mut found = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(scenario) = next else { return Ok(found) };
                if stderr().is_terminal() {
                    eprint!("\r\x1b[K{}", scenario.name);
                }
                found.push((scenario.name.clone(), replay(&scenario, &address).await?));
            }
        });
    }
    let mut found = Vec::new();
    for of_worker in workers.join_all().await {
        let of_worker: Result<Found, tonic::transport::Error> = of_worker;
        found.extend(of_worker?);
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
