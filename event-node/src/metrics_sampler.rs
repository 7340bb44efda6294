//! Samples the state of the store and of its groups for the metrics.

use std::{
    fmt::{self, Debug, Formatter},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::statvfs;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    log::Log,
    metrics::{GroupSample, StoreSample, describe, set_group, set_store},
    persistent::{ALL_STREAM, GroupInfo, GroupRegistry, oldest_parked_ticks},
};

/// Interval between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// Number of samples per measurement of the files: their sizes change slowly.
const SAMPLES_PER_MEASUREMENT: u32 = 3;
/// A tick of the log's clock is 100 nanoseconds.
const TICKS_PER_MICRO: u64 = 10;

/// Samples a running node.
#[derive(Clone)]
pub struct MetricsSampler {
    pub(crate) log: Log,
    pub(crate) groups: GroupRegistry,
    pub(crate) folder: PathBuf,
}

impl Debug for MetricsSampler {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSampler").finish_non_exhaustive()
    }
}

impl MetricsSampler {
    /// Samples until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        describe();
        let sampling = async {
            loop {
                let (disk, files) = measure_files(self.folder.clone()).await;
                for _ in 0..SAMPLES_PER_MEASUREMENT {
                    self.sample_store(disk, files);
                    self.sample_groups().await;
                    sleep(INTERVAL).await;
                }
            }
        };
        let _: Option<()> = Box::pin(stop.run_until_cancelled(sampling)).await;
    }

    fn sample_store(&self, disk: Option<(u64, u64)>, files: Option<u64>) {
        set_store(&StoreSample {
            head: self.log.head(),
            accepts_appends: self.log.watch_failure().borrow().is_none(),
            folder: &self.folder.to_string_lossy(),
            disk,
            files,
        });
    }

    async fn sample_groups(&self) {
        let Ok(groups) = self.groups.list_groups(None).await else { return };
        for group in groups {
            // The read fails for a group that was deleted meanwhile.
            let Ok(info) = group.read_info().await else { continue };
            let oldest_parked = self.age_of_oldest_parked(&info).await.unwrap_or_default();
            let counters = &info.counters;
            set_group(&GroupSample {
                stream: &info.key.stream,
                group: &info.key.name,
                is_over_all: info.key.stream == ALL_STREAM,
                n_connections: counters.consumers.len() as u64,
                n_parked: info.n_parked,
                n_in_flight: counters.n_in_flight as u64,
                oldest_parked,
                n_processed: counters.pushed.total,
                last_known: counters.last_known,
                last_checkpoint: counters.last_checkpoint,
            });
        }
    }

    /// Returns the age of the oldest parked message; `None` if there is none.
    async fn age_of_oldest_parked(&self, info: &GroupInfo) -> Option<Duration> {
        if info.n_parked == 0 {
            return None;
        }
        let replayed_before = info.counters.replayed_before;
        let ticks = oldest_parked_ticks(&self.log, &info.key, replayed_before).await?;
        let age = u64::try_from(self.log.now_ticks().saturating_sub(ticks)).unwrap_or(0);
        Some(Duration::from_micros(age / TICKS_PER_MICRO))
    }
}

/// Returns used and total bytes of the file system, and the size of the files in the folder.
async fn measure_files(folder: PathBuf) -> (Option<(u64, u64)>, Option<u64>) {
    let measured = spawn_blocking(move || (measure_disk(&folder), sum_file_sizes(&folder)));
    measured.await.unwrap_or_default()
}

fn measure_disk(folder: &Path) -> Option<(u64, u64)> {
    let disk = statvfs(folder).ok()?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree).checked_mul(disk.f_frsize)?;
    // Blocks that only the administrator may use are left out, as `df` and `dofs doctor` do.
    let available = disk.f_bavail.checked_mul(disk.f_frsize)?;
    Some((used, used.saturating_add(available)))
}

fn sum_file_sizes(folder: &Path) -> Option<u64> {
    let files = std::fs::read_dir(folder).ok()?;
    // A file that is deleted meanwhile is left out.
    Some(files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_and_files_are_measured() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), [0; 100]).unwrap();
        std::fs::write(folder.path().join("b"), [0; 11]).unwrap();
        assert_eq!(sum_file_sizes(folder.path()), Some(111));
        let (used, total) = measure_disk(folder.path()).unwrap();
        assert!(0 < used && used <= total);
        assert_eq!(sum_file_sizes(&folder.path().join("missing")), None);
        assert_eq!(measure_disk(&folder.path().join("missing")), None);
    }
}
