//! Checks of this machine: free disk space, limit of open files, port of the API, log.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api_types::HealthReport;
use projectors::ReadModelUrl;
use rustix::fs::{FileType, StatVfs, fstat, fstatvfs, statvfs};
use service_kit::address::HostPort;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Installation;
use super::finding::Finding;
use crate::api_client::local_api_url;
use crate::cli::Role;
use crate::process;
use crate::system::RESERVED_FILES;

/// Names of the checks.
const EVENT_STORE_DISK: &str = "disk.event_store";
const READ_MODEL_DISK: &str = "disk.read_model";
const TEMPORARY_DISK: &str = "disk.temporary";
const OPEN_FILES: &str = "open_files";
const PORT: &str = "port.api";
const LOG: &str = "log";

/// Free share of a file system below which a check fails, and below which it warns, in percent.
const FULL_PERCENT: u64 = 5;
const ALMOST_FULL_PERCENT: u64 = 20;
/// Maximum time for the response of a file system, e.g. of a network file system.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time for the response of the process that holds the port.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn examine(installation: &Installation<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (check, path) in folders(installation) {
        findings.push(check_disk(check, path).await);
    }
    let max_connections = installation.settings.api.max_connections.get();
    let wanted = installation.has_role(Role::Api).then_some(max_connections);
    findings.push(judge_open_files(process::raise_open_file_limit(), wanted));
    if installation.has_role(Role::Api) {
        findings.push(check_port(installation).await);
    }
    findings.push(judge_log(process::log_format_name().as_deref(), examine_stderr().as_ref()));
    findings
}

/// Returns the folders with data of this installation that are on this machine.
fn folders(installation: &Installation<'_>) -> Vec<(&'static str, PathBuf)> {
    let settings = installation.settings;
    let mut folders = Vec::new();
    if settings.event_store.url.is_local() && settings.node.data.exists() {
        folders.push((EVENT_STORE_DISK, settings.node.data.clone()));
    }
    if installation.uses_read_model() {
        let folder = file_folder(&settings.read_model.url).filter(|folder| folder.exists());
        folders.extend(folder.map(|folder| (READ_MODEL_DISK, folder)));
    }
    if installation.has_role(Role::Projector) {
        folders.push((TEMPORARY_DISK, std::env::temp_dir()));
    }
    folders
}

/// Returns the folder of the read model's file; `None` unless it is a file.
fn file_folder(url: &ReadModelUrl) -> Option<PathBuf> {
    let parent = url.file()?.parent()?;
    let is_current = parent.as_os_str().is_empty();
    Some(if is_current { PathBuf::from(".") } else { parent.to_owned() })
}

async fn check_disk(check: &'static str, path: PathBuf) -> Finding {
    let asked = path.clone();
    let found = timeout(DISK_TIMEOUT, spawn_blocking(move || statvfs(&asked))).await;
    match found {
        Ok(Ok(Ok(space))) => judge_disk(check, &path, &DiskSpace::from(space)),
        Ok(Ok(Err(error))) => {
            let detail = format!("{}: {}", path.display(), io::Error::from(error));
            Finding::fail(check, detail, "check that the folder exists and that its disk works")
        }
        Ok(Err(_)) | Err(_) => {
            let detail = format!("{}: the file system does not respond", path.display());
            Finding::fail(check, detail, "check the disk, or the server of the network file system")
        }
    }
}

/// Space of a file system that is free for this user.
struct DiskSpace {
    free_bytes: u64,
    total_bytes: u64,
    /// Numbers of files that can be created, and in total; 0 if the file system has no limit.
    free_files: u64,
    total_files: u64,
}

impl From<StatVfs> for DiskSpace {
    fn from(found: StatVfs) -> Self {
        // As `df` counts: without blocks that are reserved for the superuser.
        let n_used = found.f_blocks.saturating_sub(found.f_bfree);
        Self {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: n_used.saturating_add(found.f_bavail).saturating_mul(found.f_frsize),
            free_files: found.f_favail,
            total_files: found.f_files,
        }
    }
}

fn judge_disk(check: &'static str, path: &Path, space: &DiskSpace) -> Finding {
    let percent = |free: u64, total: u64| free.saturating_mul(100).checked_div(total);
    let free = percent(space.free_bytes, space.total_bytes).unwrap_or(100);
    let path = path.display();
    let free_mib = space.free_bytes / (1024 * 1024);
    let detail = format!("{path}: {free} % free ({free_mib} MiB)");
    let advice = "free space or enlarge the file system: a full disk stops all appends";
    if free < FULL_PERCENT {
        return Finding::fail(check, detail, advice);
    }
    if percent(space.free_files, space.total_files).is_some_and(|free| free < FULL_PERCENT) {
        let detail = format!("{path}: only {} more files can be created", space.free_files);
        return Finding::fail(check, detail, "delete files that are not needed (inodes)");
    }
    if free < ALMOST_FULL_PERCENT {
        return Finding::warn(check, detail, advice);
    }
    Finding::ok(check, detail)
}

/// Judges the limit of open files; `max_connections` is `None` without the API.
fn judge_open_files(limit: usize, max_connections: Option<usize>) -> Finding {
    let needed = max_connections.unwrap_or(0).saturating_add(RESERVED_FILES);
    if limit >= needed {
        return Finding::ok(OPEN_FILES, format!("limit {limit}, and {needed} are needed"));
    }
    Finding::warn(
        OPEN_FILES,
        format!("limit {limit} allows fewer than `api.max_connections` connections"),
        format!("raise it to {needed} (`ulimit -Hn`, `LimitNOFILE` of systemd)"),
    )
}

/// Checks whether the API can listen: its port is free, or an API holds it.
async fn check_port(installation: &Installation<'_>) -> Finding {
    let listen = &installation.settings.api.listen;
    match TcpListener::bind((listen.host(), listen.port())) {
        Ok(_) => Finding::ok(PORT, format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let url = local_api_url(&installation.settings.api, listen);
            judge_holder(listen, is_held_by_dofs(&url).await)
        }
        Err(error) => judge_bind_error(listen, &error),
    }
}

fn judge_holder(listen: &HostPort, is_dofs: bool) -> Finding {
    if is_dofs {
        return Finding::ok(PORT, format!("{listen} is held by a DOFS process that responds"));
    }
    Finding::fail(
        PORT,
        format!("{listen} is held by another program, or by a process that does not respond"),
        "stop it (`ss -ltnp` names it), or change `api.listen`",
    )
}

fn judge_bind_error(listen: &HostPort, error: &io::Error) -> Finding {
    let advice = if error.kind() == ErrorKind::PermissionDenied {
        "use a port above 1023, or grant CAP_NET_BIND_SERVICE"
    } else {
        "set `api.listen` to an address of this machine, e.g. `0.0.0.0:8080`"
    };
    Finding::fail(PORT, format!("cannot listen on {listen}: {error}"), advice)
}

/// Returns whether the server at `url` answers as a DOFS process does.
async fn is_held_by_dofs(url: &str) -> bool {
    // The certificate is for the name that clients use, not for the loopback address.
    let client = reqwest::Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .timeout(HOLDER_TIMEOUT)
        .build();
    let Ok(client) = client else { return false };
    match client.get(format!("{url}/livez")).send().await {
        Ok(response) => response.json::<HealthReport>().await.is_ok(),
        Err(_) => false,
    }
}

/// What standard error is, which receives the log.
enum LogSink {
    File(DiskSpace),
    /// A pipe, a socket, a terminal or another device.
    Stream,
}

/// Examines standard error; `None` if it is closed.
fn examine_stderr() -> Option<LogSink> {
    let stderr = io::stderr();
    let found = fstat(&stderr).ok()?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Some(LogSink::Stream);
    }
    Some(fstatvfs(&stderr).map_or(LogSink::Stream, |space| LogSink::File(space.into())))
}

/// Judges the format of the log (`DOFS_LOG`) and standard error, as this command has it.
fn judge_log(format: Option<&str>, sink: Option<&LogSink>) -> Finding {
    let is_known =
        |name: &&str| ["json", "text"].iter().any(|known| name.eq_ignore_ascii_case(known));
    if let Some(unknown) = format.filter(|name| !name.is_empty() && !is_known(name)) {
        let detail = format!("DOFS_LOG is `{unknown}`: the log is written as text");
        return Finding::warn(LOG, detail, "set DOFS_LOG to `json` or `text`");
    }
    let format = format.filter(|name| !name.is_empty()).unwrap_or("text");
    match sink {
        None => {
            Finding::warn(LOG, "standard error is closed", "redirect it to a file or a journal")
        }
        Some(LogSink::Stream) => Finding::ok(LOG, format!("{format} on standard error")),
        Some(LogSink::File(space)) => judge_disk(LOG, Path::new("file of standard error"), space),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    fn space(free_percent: u64, free_files: u64) -> DiskSpace {
        const GIB: u64 = 1 << 30;
        DiskSpace {
            free_bytes: free_percent * GIB,
            total_bytes: 100 * GIB,
            free_files,
            total_files: 1_000,
        }
    }

    #[test]
    fn disk_is_judged_by_free_space_and_files() {
        let judge = |free, files| judge_disk("disk", Path::new("/data"), &space(free, files));
        assert_eq!(judge(4, 900).status, Status::Fail);
        assert_eq!(judge(4, 900).detail, "/data: 4 % free (4096 MiB)");
        assert_eq!(judge(5, 900).status, Status::Warn);
        assert_eq!(judge(19, 900).status, Status::Warn);
        assert_eq!(judge(20, 900).status, Status::Ok);
        assert_eq!(judge(50, 49).status, Status::Fail);
        let endless = DiskSpace { total_files: 0, ..space(50, 0) };
        assert_eq!(judge_disk("disk", Path::new("/data"), &endless).status, Status::Ok);
    }

    #[test]
    fn open_files_must_allow_the_configured_connections() {
        assert_eq!(judge_open_files(1_024, Some(10_000)).status, Status::Warn);
        assert_eq!(judge_open_files(10_124, Some(10_000)).status, Status::Ok);
        assert_eq!(judge_open_files(1_024, None).status, Status::Ok);
    }

    #[test]
    fn log_format_and_full_disk_are_found() {
        let judge = |format, sink: Option<&LogSink>| judge_log(format, sink).status;
        assert_eq!(judge(None, Some(&LogSink::Stream)), Status::Ok);
        assert_eq!(judge(Some("JSON"), Some(&LogSink::Stream)), Status::Ok);
        assert_eq!(judge(Some("xml"), Some(&LogSink::Stream)), Status::Warn);
        assert_eq!(judge(None, None), Status::Warn);
        assert_eq!(judge(None, Some(&LogSink::File(space(1, 900)))), Status::Fail);
    }

    #[test]
    fn port_that_cannot_be_used_names_the_cause() {
        let listen: HostPort = "192.0.2.1:80".parse().unwrap();
        let denied = judge_bind_error(&listen, &ErrorKind::PermissionDenied.into());
        assert!(denied.advice.unwrap().contains("above 1023"));
        let foreign = judge_bind_error(&listen, &ErrorKind::AddrNotAvailable.into());
        assert!(foreign.advice.unwrap().contains("an address of this machine"));
        assert_eq!(judge_holder(&listen, true).status, Status::Ok);
        assert_eq!(judge_holder(&listen, false).status, Status::Fail);
    }
}
