//! CPU time by thread name.

use std::{collections::BTreeMap, fs};

/// Clock ticks per second in `/proc` on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Returns the CPU milliseconds of this process by thread name. Empty without `/proc`.
pub(crate) fn cpu_millis() -> BTreeMap<String, u64> {
    let mut spent = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        // A thread may end before its file is read.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        if let Some((name, ticks)) = parse_stat(&stat) {
            *spent.entry(name).or_default() += ticks * 1_000 / TICKS_PER_SECOND;
        }
    }
    spent
}

/// Formats the CPU time of each thread name since `before` as a share of the total.
pub(crate) fn format_cpu_shares(before: &BTreeMap<String, u64>) -> String {
    let mut spent = cpu_millis();
    for (name, millis) in &mut spent {
        *millis = millis.saturating_sub(before.get(name).copied().unwrap_or(0));
    }
    let all: u64 = spent.values().sum();
    let significant = spent.into_iter().filter(|(_, millis)| millis * 100 >= all.max(1));
    let share = |(name, millis)| format!("{name} {} %", millis * 100 / all.max(1));
    significant.map(share).collect::<Vec<_>>().join(", ")
}

/// Parses thread name and CPU ticks of one line of `stat`.
fn parse_stat(stat: &str) -> Option<(String, u64)> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    let ticks = user.parse::<u64>().ok()? + system.parse::<u64>().ok()?;
    Some((name.to_owned(), ticks))
}
