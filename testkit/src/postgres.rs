//! PostgreSQL for tests: a database for each, on a server that nobody has to set up.
//!
//! The server is the one that `DOFS_TEST_POSTGRES_URL` names. Without it, the test process starts
//! one of its own from PostgreSQL's installed programs, at the first call, on a free port of the
//! loopback interface and in a temporary folder. Nobody needs a password there and nothing is
//! written with care: it is for tests only. `supervise.sh` ends it together with the process,
//! however that ends.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Where Debian keeps the programs of each version.
const INSTALLED: &str = "/usr/lib/postgresql";
const SUPERVISE: &str = include_str!("postgres/supervise.sh");
/// Below the range that the system hands out: no client's own end takes the port of a server that
/// is stopped for a while.
const FIRST_PORT: u16 = 20_000;
const N_PORTS: u16 = 12_000;
/// Another process may take a port between our look and the server's start.
const START_ATTEMPTS: usize = 5;
/// How long making or dropping a database may take. Reached only when something is broken.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A database of its own for one test, empty. Dropped with this value.
#[derive(Debug)]
pub struct Database {
    server: &'static str,
    name: String,
    url: String,
}

/// A server of its own for one test, which may stop it. Removed with this value.
///
/// Its functions block: in async code on one thread, nothing else runs meanwhile.
#[derive(Debug)]
pub struct PrivateServer {
    supervisor: Child,
    /// Closed to make the supervisor end.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    port: u16,
}

/// A fresh database on the server that all tests of this process share.
///
/// # Panics
/// If there is no server and none can be started; the message says what to do.
pub async fn database() -> Database {
    let made = tokio::task::spawn_blocking(database_blocking).await;
    made.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

/// [`database`] for tests that are not async.
pub fn database_blocking() -> Database {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = shared_server();
    // Processes in different containers, with the same id, may share a server.
    let (process, chance) = (std::process::id(), random() >> 32);
    let name = format!("dofs_test_{process}_{chance:08x}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    execute(server, format!("CREATE DATABASE {name}")).expect("the server makes a database");
    let url = with_database(server, &name);
    Database { server, name, url }
}

/// Starts a server for one test, whether or not `DOFS_TEST_POSTGRES_URL` names another.
pub fn private_server() -> PrivateServer {
    let mut server = PrivateServer::supervised();
    let mut failure = String::new();
    for _ in 0..START_ATTEMPTS {
        server.port = free_port();
        match server.ask(&format!("start {}", server.port)) {
            Ok(()) => return server,
            Err(log) => failure = log,
        }
    }
    panic!("PostgreSQL does not start: {failure}");
}

impl Database {
    /// Where it is: `postgres://...`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // By force, because the test's own connections may still be open. A server that does not
        // answer any more has no database to drop either.
        drop(execute(self.server, format!("DROP DATABASE {} WITH (FORCE)", self.name)));
    }
}

impl PrivateServer {
    /// Where its one database is, whether or not the server runs.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops it as a crash would: connections break, nothing is written out. Committed rows are
    /// there again after [`start`](Self::start).
    #[track_caller]
    pub fn stop_immediately(&mut self) {
        self.ask("stop").unwrap_or_else(|log| panic!("PostgreSQL does not stop: {log}"));
    }

    /// Starts it again, on the same port and with the same data.
    #[track_caller]
    pub fn start(&mut self) {
        let asked = self.ask(&format!("start {}", self.port));
        asked.unwrap_or_else(|log| panic!("PostgreSQL does not start: {log}"));
    }

    /// A server's files, and the shell that starts and stops it.
    fn supervised() -> Self {
        let programs = newest_programs(Path::new(INSTALLED)).or_else(programs_on_path);
        let programs = programs.expect(
            "these tests need PostgreSQL: run scripts/test, which installs it, \
             or name a server in DOFS_TEST_POSTGRES_URL",
        );
        let mut supervisor = Command::new("sh");
        supervisor.args(["-c", SUPERVISE, "supervise"]).arg(programs).arg(std::env::temp_dir());
        // PG* variables of the developer are not for this server.
        supervisor.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        supervisor.env("LC_ALL", "C");
        // A group of its own: an interrupt at the terminal is for the test, whose end it sees.
        supervisor.process_group(0);
        supervisor.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut supervisor = supervisor.spawn().expect("sh starts");
        let commands = supervisor.stdin.take();
        let answers = BufReader::new(supervisor.stdout.take().expect("stdout is piped"));
        let mut server = Self { supervisor, commands, answers, port: 0 };
        server.answer().unwrap_or_else(|log| panic!("initdb fails: {log}"));
        server
    }

    fn ask(&mut self, command: &str) -> Result<(), String> {
        let commands = self.commands.as_mut().expect("it is open until this is dropped");
        writeln!(commands, "{command}").expect("the supervisor lives as long as this process");
        self.answer()
    }

    /// Waits for the answer; a failure comes with the log's end.
    fn answer(&mut self) -> Result<(), String> {
        let mut log = String::new();
        for line in self.answers.by_ref().lines() {
            match line.expect("the supervisor writes text").as_str() {
                "ok" => return Ok(()),
                "failed" => return Err(log),
                line => log.extend([line, "\n"]),
            }
        }
        Err(format!("{log}the supervisor ended"))
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.commands = None;
        // When it has ended, so has the server. There is nothing to do if it cannot be waited for.
        drop(self.supervisor.wait());
    }
}

/// Where the server is that the tests of this process share.
fn shared_server() -> &'static str {
    static GIVEN: OnceLock<Option<String>> = OnceLock::new();
    static STARTED: OnceLock<(PrivateServer, String)> = OnceLock::new();
    if let Some(url) = GIVEN.get_or_init(given_server) {
        return url;
    }
    let started = STARTED.get_or_init(|| {
        let server = private_server();
        let url = server.url();
        (server, url)
    });
    &started.1
}

#[expect(clippy::disallowed_methods, reason = "the setting is the tests' own, not the product's")]
fn given_server() -> Option<String> {
    std::env::var("DOFS_TEST_POSTGRES_URL").ok().filter(|url| !url.is_empty())
}

/// The folder of the newest version's programs among `root/<version>/bin`.
fn newest_programs(root: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(root).ok()?.filter_map(|entry| {
        let version = entry.ok()?.path();
        let number: u32 = version.file_name()?.to_str()?.parse().ok()?;
        Some((number, version.join("bin"))).filter(|(_, bin)| has_programs(bin))
    });
    versions.max().map(|(_, bin)| bin)
}

fn programs_on_path() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).find(|folder| has_programs(folder))
}

fn has_programs(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

fn free_port() -> u16 {
    let random_ports = std::iter::repeat_with(|| {
        let offset = random() % u64::from(N_PORTS);
        FIRST_PORT + u16::try_from(offset).expect("it is less than a u16")
    });
    random_ports
        .take(usize::from(N_PORTS))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a port is free")
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// The same server's URL with another database.
fn with_database(server: &str, name: &str) -> String {
    let (address, query) = match server.split_once('?') {
        Some((address, query)) => (address, format!("?{query}")),
        None => (server, String::new()),
    };
    let (scheme, rest) = address.split_once("://").expect("the server's URL has a scheme");
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    format!("{scheme}://{authority}/{name}{query}")
}

/// Runs a statement on a thread and runtime of its own: the caller's may be anything, or ending.
fn execute(server: &str, statement: String) -> Result<(), String> {
    let run = async {
        let mut connection = PgConnection::connect(server).await?;
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await
    };
    let bounded = async { tokio::time::timeout(STATEMENT_TIMEOUT, run).await };
    let outcome = std::thread::scope(|scope| {
        let runtime = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(bounded)
        };
        scope.spawn(runtime).join().expect("the statement's thread ends")
    });
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(elapsed) => Err(elapsed.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_newest_by_number() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "15", "16"] {
            let bin = root.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            for program in ["initdb", "postgres"] {
                std::fs::write(bin.join(program), "").unwrap();
            }
        }
        std::fs::remove_file(root.path().join("16/bin/initdb")).unwrap();
        std::fs::create_dir(root.path().join("lost+found")).unwrap();
        assert_eq!(newest_programs(root.path()), Some(root.path().join("15/bin")));
    }

    #[test]
    fn a_server_url_keeps_everything_but_its_database() {
        let cases = [
            (
                "postgres://u:p@db:1/main?sslmode=require",
                "postgres://u:p@db:1/test?sslmode=require",
            ),
            ("postgres://u@db/main", "postgres://u@db/test"),
            ("postgres://db", "postgres://db/test"),
            ("postgres:///main?host=/run", "postgres:///test?host=/run"),
        ];
        for (server, expected) in cases {
            assert_eq!(with_database(server, "test"), expected);
        }
    }
}
