//! Compares the node's responses with the recording of a real EventStoreDB.
//!
//! `cargo test -p event-node --test recording` prints every difference that
//! `recording/known_differences.toml` does not list.

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fmt::Write,
        fs,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use conformance::replay::{
        Difference, KnownDifferences, Scenario, known_differences_file, load_scenarios,
        recording_folder, replay_scenario,
    };
    use event_node::{Node, NodeConfig};
    use service_kit::clock::Clock;
    use tokio::{task::JoinSet, time::timeout};
    use tokio_util::sync::CancellationToken;

    /// Number of nodes. Each runs one scenario at a time, because some scenarios read the whole
    /// store. Most of the time is spent waiting for responses that must not come.
    const NODES: usize = 16;

    /// Minimum number of scenarios in the recording.
    const MIN_SCENARIOS: usize = 300;

    /// Maximum time for all scenarios: about four times what they need.
    const LIMIT: Duration = Duration::from_mins(1);

    const FAMILIES: [&str; 12] = [
        "append",
        "batch",
        "delete",
        "deliveries",
        "effects",
        "groups",
        "http",
        "read",
        "read-all",
        "services",
        "subscribe",
        "wire",
    ];

    #[tokio::test(flavor = "multi_thread")]
    async fn node_responds_as_recorded() {
        let scenarios = load_scenarios(&recording_folder()).unwrap();
        let families: BTreeSet<_> = scenarios.iter().map(Scenario::family).collect();
        assert_eq!(families, BTreeSet::from(FAMILIES));
        assert!(scenarios.len() >= MIN_SCENARIOS, "only {} scenarios", scenarios.len());

        let found = timeout(LIMIT, replay_all(scenarios)).await.unwrap();
        let known = KnownDifferences::load(&known_differences_file()).unwrap();
        let stale = known.find_stale(&found);
        let mut unexplained = String::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (scenario, differences) in &found {
            let differences = known.find_unexplained(scenario, differences);
            if !differences.is_empty() {
                *counts.entry(scenario.split('/').next().unwrap()).or_default() += 1;
                writeln!(unexplained, "{scenario}").unwrap();
                for difference in differences {
                    writeln!(unexplained, "{difference}").unwrap();
                }
            }
        }
        let differing: usize = counts.values().sum();
        println!(
            "{} scenarios compared, {differing} differ without an explanation: {counts:?}",
            found.len()
        );
        assert!(unexplained.is_empty(), "\n{unexplained}");
        assert!(
            stale.is_empty(),
            "listed in known_differences.toml, but equal:\n{}",
            stale.join("\n")
        );
    }

    /// The table of the compatibility page has the keys of the known differences, and the numbers
    /// of the page match the recording.
    #[test]
    fn compatibility_page_matches_known_differences() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/event-store-compatibility.md");
        let page = fs::read_to_string(page).unwrap();
        let rows = page.lines().filter_map(|line| {
            let (key, cells) = line.strip_prefix("| `")?.split_once("` |")?;
            cells.ends_with("| yes |").then_some(key)
        });
        let rows: Vec<_> = rows.collect();
        let known = KnownDifferences::load(&known_differences_file()).unwrap();
        let keys: Vec<_> = known.entries().iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(rows, keys, "both lists are sorted and have each key once");

        let scenarios = load_scenarios(&recording_folder()).unwrap();
        let names: BTreeSet<_> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        let differing = known.entries().iter().flat_map(|entry| &entry.scenarios);
        let differing: BTreeSet<_> = differing.map(String::as_str).collect();
        let (count, different) = (names.len(), differing.len());
        assert_eq!(scenarios.len(), count, "scenario names are unique");
        assert!(differing.is_subset(&names), "{:?}", differing.difference(&names));
        // The page may break its lines anywhere.
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        for sentence in [
            format!("{count} scenarios of raw protocol messages"),
            format!("{} equal, {different} different for a known reason", count - different),
        ] {
            assert!(page.contains(&sentence), "the page does not say: {sentence}");
        }
    }

    /// Returns the differences of each scenario, in the order of the recording.
    async fn replay_all(scenarios: Vec<Scenario>) -> Vec<(String, Vec<Difference>)> {
        let scenarios: Arc<[Scenario]> = scenarios.into();
        let next = Arc::new(AtomicUsize::new(0));
        let mut nodes = JoinSet::new();
        for _ in 0..NODES {
            nodes.spawn(replay_on_own_node(Arc::clone(&scenarios), Arc::clone(&next)));
        }
        let mut found: Vec<_> = nodes.join_all().await.into_iter().flatten().collect();
        found.sort_by_key(|(index, _, _)| *index);
        found.into_iter().map(|(_, name, differences)| (name, differences)).collect()
    }

    /// Starts a node and runs scenarios on it until none is left.
    async fn replay_on_own_node(
        scenarios: Arc<[Scenario]>,
        next: Arc<AtomicUsize>,
    ) -> Vec<(usize, String, Vec<Difference>)> {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let node = start_node(folder.path(), &stop).await;
        let address = node.address().to_string();
        let mut found = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = scenarios.get(index) else { break };
            let differences = replay_scenario(scenario, &address).await.unwrap();
            found.push((index, scenario.name.clone(), differences));
        }
        stop.cancel();
        node.wait_until_ended().await.unwrap();
        found
    }

    #[expect(clippy::disallowed_methods, reason = "tests create their clock")]
    async fn start_node(data: &Path, stop: &CancellationToken) -> Node {
        let config = NodeConfig::new("127.0.0.1:0".parse().unwrap(), data);
        let clock = Clock::new(jiff::Timestamp::now, uuid::Uuid::new_v4);
        Node::start(config, clock, stop.clone()).await.unwrap()
    }
}
