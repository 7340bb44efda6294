//! Processor time by the names of threads: where the time goes.

use std::{collections::BTreeMap, fs};

/// Clock ticks a second in `/proc`, on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Milliseconds of processor time of this process, by thread name. Empty where there is no `/proc`.
pub(crate) fn processor_millis() -> BTreeMap<String, u64> {
    let mut spent = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        // A thread may end while it is looked at.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        if let Some((name, ticks)) = parse(&stat) {
            *spent.entry(name).or_default() += ticks * 1_000 / TICKS_PER_SECOND;
        }
    }
    spent
}

/// `before` subtracted from what was spent since, as shares of the whole.
pub(crate) fn shares(before: &BTreeMap<String, u64>) -> String {
    let mut spent = processor_millis();
    for (name, millis) in &mut spent {
        *millis = millis.saturating_sub(before.get(name).copied().unwrap_or(0));
    }
    let all: u64 = spent.values().sum();
    let worth_telling = spent.into_iter().filter(|(_, millis)| millis * 100 >= all.max(1));
    let share = |(name, millis)| format!("{name} {} %", millis * 100 / all.max(1));
    worth_telling.map(share).collect::<Vec<_>>().join(", ")
}

/// Name, and user and system time, of one line of `stat`.
fn parse(stat: &str) -> Option<(String, u64)> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    let ticks = user.parse::<u64>().ok()? + system.parse::<u64>().ok()?;
    Some((name.to_owned(), ticks))
}
