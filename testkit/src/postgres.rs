//! PostgreSQL for tests: a database for each test, on a server without manual set-up.
//!
//! The server is the one in `DOFS_TEST_POSTGRES_URL`. Without it, the test process starts its own
//! server from PostgreSQL's installed programs, at the first call, on a free port of the loopback
//! interface and in a temporary folder. That server needs no password and does not sync writes to disk.
//! `supervise.sh` stops it when the process ends, however that ends.

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

/// Folder of PostgreSQL's versions on Debian.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";
const SUPERVISOR_SCRIPT: &str = include_str!("postgres/supervise.sh");
/// Below the range of ephemeral ports, so that no client takes the port of a server that is stopped
/// temporarily.
const FIRST_PORT: u16 = 20_000;
const N_PORTS: u16 = 12_000;
/// Maximum number of attempts: another process may take a port after it was found free.
const START_ATTEMPTS: usize = 5;
/// Maximum time to create or drop a database. Reached only if something is broken.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// An empty database for one test. Dropped with this value.
#[derive(Debug)]
pub struct Database {
    server: &'static str,
    name: String,
    url: String,
}

/// A server for one test, which can stop it. Removed with this value.
///
/// Its functions block the thread, also in asynchronous tests.
#[derive(Debug)]
pub struct PrivateServer {
    supervisor: Child,
    /// Closing it ends the supervisor.
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    port: u16,
}

/// Creates a database on the server that all tests of this process share.
///
/// # Panics
/// If there is no server and none can be started; the message contains the solution.
pub async fn create_database() -> Database {
    let created = tokio::task::spawn_blocking(create_database_blocking).await;
    created.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

/// Like [`create_database`], for synchronous tests.
pub fn create_database_blocking() -> Database {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = shared_server_url();
    // Processes with the same id, in different containers, may share a server: hence the random part.
    let (process, random) = (std::process::id(), random_number() >> 32);
    let name = format!("dofs_test_{process}_{random:08x}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    execute_statement(server, format!("CREATE DATABASE {name}"))
        .expect("the server creates the database");
    let url = with_database(server, &name);
    Database { server, name, url }
}

/// Starts a server for one test, even if `DOFS_TEST_POSTGRES_URL` is set.
pub fn start_private_server() -> PrivateServer {
    let mut server = PrivateServer::with_supervisor();
    let mut failure = String::new();
    for _ in 0..START_ATTEMPTS {
        server.port = find_free_port();
        match server.send_command(&format!("start {}", server.port)) {
            Ok(()) => return server,
            Err(log) => failure = log,
        }
    }
    panic!("PostgreSQL does not start: {failure}");
}

impl Database {
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // FORCE, because connections of the test may still be open. Fails if the server has ended, with
        // its databases.
        drop(execute_statement(self.server, format!("DROP DATABASE {} WITH (FORCE)", self.name)));
    }
}

impl PrivateServer {
    /// Returns the URL of the server's database, whether or not the server runs.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops the server as in a crash: connections break, nothing is flushed. Committed rows exist again
    /// after [`start`](Self::start).
    #[track_caller]
    pub fn stop_immediately(&mut self) {
        self.send_command("stop").unwrap_or_else(|log| panic!("PostgreSQL does not stop: {log}"));
    }

    /// Starts the server again, on the same port and data.
    #[track_caller]
    pub fn start(&mut self) {
        let outcome = self.send_command(&format!("start {}", self.port));
        outcome.unwrap_or_else(|log| panic!("PostgreSQL does not start: {log}"));
    }

    /// Creates the files of a server, and starts the supervisor that starts and stops it.
    fn with_supervisor() -> Self {
        let programs =
            find_newest_programs(Path::new(DEBIAN_VERSIONS)).or_else(find_programs_on_path);
        let programs = programs.expect(
            "these tests need PostgreSQL: run scripts/test, which installs it, \
             or set DOFS_TEST_POSTGRES_URL to the URL of a server",
        );
        let mut supervisor = Command::new("sh");
        supervisor
            .args(["-c", SUPERVISOR_SCRIPT, "supervise"])
            .arg(programs)
            .arg(std::env::temp_dir());
        // PG* variables of the developer must not configure this server.
        supervisor.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        supervisor.env("LC_ALL", "C");
        // Its own process group, so that Ctrl-C reaches only the test; the supervisor ends after it.
        supervisor.process_group(0);
        supervisor.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut supervisor = supervisor.spawn().expect("sh starts");
        let commands = supervisor.stdin.take();
        let replies = BufReader::new(supervisor.stdout.take().expect("stdout is piped"));
        let mut server = Self { supervisor, commands, replies, port: 0 };
        server.read_reply().unwrap_or_else(|log| panic!("initdb fails: {log}"));
        server
    }

    fn send_command(&mut self, command: &str) -> Result<(), String> {
        let commands = self.commands.as_mut().expect("open until the server is dropped");
        writeln!(commands, "{command}").expect("the supervisor lives as long as this process");
        self.read_reply()
    }

    /// Reads the reply to a command; the error is the end of the server's log.
    fn read_reply(&mut self) -> Result<(), String> {
        let mut log = String::new();
        for line in self.replies.by_ref().lines() {
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
        // The supervisor stops the server before it ends.
        drop(self.supervisor.wait());
    }
}

/// Returns the URL of the server that the tests of this process share.
fn shared_server_url() -> &'static str {
    static CONFIGURED: OnceLock<Option<String>> = OnceLock::new();
    static STARTED: OnceLock<(PrivateServer, String)> = OnceLock::new();
    if let Some(url) = CONFIGURED.get_or_init(configured_server_url) {
        return url;
    }
    let started = STARTED.get_or_init(|| {
        let server = start_private_server();
        let url = server.url();
        (server, url)
    });
    &started.1
}

#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
fn configured_server_url() -> Option<String> {
    std::env::var("DOFS_TEST_POSTGRES_URL").ok().filter(|url| !url.is_empty())
}

/// Returns the newest version's `root/<version>/bin`.
fn find_newest_programs(root: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(root).ok()?.filter_map(|entry| {
        let version = entry.ok()?.path();
        let number: u32 = version.file_name()?.to_str()?.parse().ok()?;
        Some((number, version.join("bin"))).filter(|(_, bin)| has_programs(bin))
    });
    versions.max().map(|(_, bin)| bin)
}

fn find_programs_on_path() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).find(|folder| has_programs(folder))
}

fn has_programs(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

fn find_free_port() -> u16 {
    // Random ports, because test processes that run at the same time must not all try the same one.
    let random_ports = std::iter::repeat_with(|| {
        let offset = random_number() % u64::from(N_PORTS);
        FIRST_PORT + u16::try_from(offset).expect("the offset fits a u16")
    });
    random_ports
        .take(usize::from(N_PORTS))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a port is free")
}

fn random_number() -> u64 {
    RandomState::new().hash_one(())
}

/// Returns the URL of another database on the same server.
fn with_database(server: &str, name: &str) -> String {
    let mut url: reqwest::Url = server.parse().expect("the server has a URL");
    url.set_path(name);
    url.into()
}

/// Executes a statement on its own thread and runtime: the caller may have none, or one that is shutting
/// down.
fn execute_statement(server: &str, statement: String) -> Result<(), String> {
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
    fn newest_version_is_found_by_number() {
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
        assert_eq!(find_newest_programs(root.path()), Some(root.path().join("15/bin")));
    }

    #[test]
    fn database_name_is_replaced_in_a_server_url() {
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
