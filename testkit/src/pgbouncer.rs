//! A `PgBouncer` in transaction mode in front of a PostgreSQL server.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use crate::postgres::PrivateServer;
use crate::wait;

/// Path of the program on Debian, which is not in the `PATH` of every user.
const DEBIAN_PATH: &str = "/usr/sbin/pgbouncer";
/// Number of server sessions per database: fewer than client connections, so that clients share
/// sessions.
const N_SESSIONS: u32 = 8;

/// A running pooler. Killed when dropped.
pub struct PgBouncer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a pooler in front of `server`. Returns `None` if the program is not installed, with a line
    /// on standard error that the test runner does not capture.
    pub fn start(server: &PrivateServer) -> Option<Self> {
        let Some(program) = find_program() else {
            let text = "SKIPPED: PgBouncer is not installed; scripts/test installs it\n";
            // Standard error may be closed.
            drop(std::io::stderr().write_all(text.as_bytes()));
            return None;
        };
        let options: PgConnectOptions = server.url().parse().expect("a server has a URL");
        // PgBouncer cannot choose a free port by itself.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("loopback has a free port").port();
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), readable).expect("the folder is ours");
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {N_SESSIONS}\n",
            options.get_port()
        );
        std::fs::write(&settings, text).expect("the folder can be written");
        let child = build_command(&program, &settings).spawn().expect("sh starts");
        let started = Self { child, port, _folder: folder };
        wait::until("PgBouncer listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        });
        Some(started)
    }

    /// Returns the URL of a database of the server, reached through the pooler.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?pgbouncer=true", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // The process may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn find_program() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("pgbouncer")).collect::<Vec<_>>()
    });
    on_path.chain([PathBuf::from(DEBIAN_PATH)]).find(|path| path.is_file())
}

/// Returns the command that runs the pooler. The pooler is killed when this process ends, however that
/// ends. As root, the pooler runs as another user, because it refuses to run as root.
fn build_command(program: &Path, settings: &Path) -> Command {
    let mut command = Command::new("sh");
    let start = "as=; [ \"$(id -u)\" != 0 ] || as='--reuid=nobody --regid=nogroup --clear-groups'; \
                 exec setpriv --pdeathsig KILL $as \"$1\" --quiet \"$2\"";
    command.args(["-c", start, "pgbouncer"]).arg(program).arg(settings);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
