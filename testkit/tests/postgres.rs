//! Test databases are independent, and are removed after use.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so; clippy sees tests only in functions marked so"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::{Connection, PgConnection};
use testkit::postgres::Database;
use testkit::{postgres, wait};

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the server answers")
}

/// Returns whether the database does not exist (SQLSTATE 3D000).
async fn is_missing(url: &str) -> bool {
    let refused = PgConnection::connect(url).await.err();
    let code = refused.as_ref().and_then(|error| error.as_database_error()?.code());
    code.as_deref() == Some("3D000")
}

#[tokio::test]
async fn databases_are_independent() {
    let (one, other) = (postgres::create_database().await, postgres::create_database().await);
    assert_ne!(one.url(), other.url());
    let (mut one, mut other) = (connect(one.url()).await, connect(other.url()).await);
    let made = "CREATE TABLE only_here (id BIGINT)";
    sqlx::query(made).execute(&mut one).await.expect("the first is empty");
    sqlx::query(made).execute(&mut other).await.expect("the second is empty too");
}

#[tokio::test]
async fn dropped_database_is_removed_even_if_in_use() {
    let database = postgres::create_database().await;
    let url = database.url().to_owned();
    let mut user = connect(&url).await;
    drop(database);
    assert!(is_missing(&url).await, "{url} is still there");
    sqlx::query("SELECT 1").execute(&mut user).await.expect_err("the connection was ended");
}

#[test]
fn database_is_created_and_dropped_without_runtime() {
    let database = postgres::create_database_blocking();
    let url = database.url().to_owned();
    drop(database);
    assert!(block_on(is_missing(&url)), "{url} is still there");
}

#[tokio::test]
async fn crashed_private_server_keeps_committed_rows() {
    let mut server = postgres::start_private_server();
    let url = server.url();
    let mut user = connect(&url).await;
    sqlx::query("CREATE TABLE kept AS SELECT 7 AS value").execute(&mut user).await.unwrap();

    server.stop_immediately();
    sqlx::query("SELECT 1").execute(&mut user).await.expect_err("the connection broke");
    assert!(PgConnection::connect(&url).await.is_err(), "the server is stopped");

    server.start();
    let kept = sqlx::query_scalar("SELECT value FROM kept");
    let kept: i32 = kept.fetch_one(&mut connect(&url).await).await.unwrap();
    assert_eq!(kept, 7);

    let data = ServerData::read(&url).await;
    drop(server);
    assert!(data.is_gone(), "{data:?} is still there");
}

#[test]
fn server_is_removed_when_its_process_ends() {
    if let Some(database) = create_database_in_child() {
        let data = block_on(ServerData::read(database.url()));
        println!("\n{CHILD} {} {}", data.server_id, data.folder.display());
        // Waits until the parent closes its end of the pipe.
        std::io::stdin().read_to_end(&mut Vec::new()).expect("stdin is the parent's pipe");
        return;
    }
    let name = "server_is_removed_when_its_process_ends";
    let (mut child, output, data) = spawn_child_with_server(name);
    drop(child.stdin.take());
    assert!(child.wait().expect("the child is ours").success(), "{:?}", output.collect::<Vec<_>>());
    wait::until("the server is removed", || data.is_gone().then_some(()));

    let (mut child, _output, data) = spawn_child_with_server(name);
    child.kill().expect("the child can be killed");
    child.wait().expect("the child ended");
    wait::until("the server is removed", || data.is_gone().then_some(()));
}

/// Environment variable that marks the child process, and prefix of its output line.
const CHILD: &str = "DOFS_TESTKIT_CHILD";

/// In the child process, creates a database on the shared server of the process.
fn create_database_in_child() -> Option<Database> {
    std::env::var_os(CHILD).map(|_| postgres::create_database_blocking())
}

/// Runs this test in a child process. Returns the process, its remaining output, and its server.
fn spawn_child_with_server(test: &str) -> (Child, impl Iterator<Item = String>, ServerData) {
    let mut child = Command::new(std::env::current_exe().expect("this process has a program"));
    child.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
    child.env_remove("DOFS_TEST_POSTGRES_URL");
    child.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut lines = output.lines().map_while(Result::ok);
    let data = lines.find_map(|line| {
        let mut words = line.strip_prefix(CHILD)?.split_whitespace();
        let server_id = words.next()?.parse().ok()?;
        Some(ServerData { server_id, folder: words.next()?.into() })
    });
    let data = data.expect("the child names its server");
    assert!(!data.is_gone(), "{data:?} is there while the child lives");
    (child, lines, data)
}

/// The process and the folder of a server.
#[derive(Debug)]
struct ServerData {
    server_id: u32,
    folder: PathBuf,
}

impl ServerData {
    async fn read(url: &str) -> Self {
        let shown = sqlx::query_scalar("SELECT current_setting('data_directory')");
        let data: String = shown.fetch_one(&mut connect(url).await).await.unwrap();
        let lock = std::fs::read_to_string(Path::new(&data).join("postmaster.pid")).unwrap();
        let server_id = lock.lines().next().unwrap().parse().unwrap();
        Self { server_id, folder: Path::new(&data).parent().unwrap().to_owned() }
    }

    fn is_gone(&self) -> bool {
        !self.folder.exists() && !Path::new("/proc").join(self.server_id.to_string()).exists()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime can be made").block_on(future)
}
