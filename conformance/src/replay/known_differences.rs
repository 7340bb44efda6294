//! The list of intended differences between the node and the recording.

use std::{collections::HashSet, fs, io, path::Path};

use regex::Regex;
use serde::Deserialize;

use super::difference::Difference;

/// An error of loading the list of known differences.
#[derive(Debug, thiserror::Error)]
pub enum KnownDifferencesError {
    /// The file is unreadable.
    #[error("cannot read the known differences: {0}")]
    Read(#[from] io::Error),
    /// The file has another format.
    #[error("invalid list of known differences: {0}")]
    Format(#[from] toml::de::Error),
    /// A path is not a regular expression.
    #[error("invalid path in the known differences: {0}")]
    Path(#[from] regex::Error),
}

/// The list of known differences.
#[derive(Debug)]
pub struct KnownDifferences {
    entries: Vec<KnownDifference>,
}

/// Scenarios that differ for one reason.
#[derive(Debug)]
pub struct KnownDifference {
    /// Key of the row of the compatibility page that explains the difference.
    pub key: String,
    /// Family and name of each scenario.
    pub scenarios: Vec<String>,
    /// Pattern of the paths that may differ. Without it, every path may.
    at: Option<Regex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFile {
    difference: Vec<ListEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListEntry {
    key: String,
    at: Option<String>,
    scenarios: Vec<String>,
}

impl KnownDifferences {
    /// Loads the list from a file.
    pub fn load(path: &Path) -> Result<Self, KnownDifferencesError> {
        Self::parse_list(&fs::read_to_string(path)?)
    }

    fn parse_list(text: &str) -> Result<Self, KnownDifferencesError> {
        let file: ListFile = toml::from_str(text)?;
        let mut entries = Vec::new();
        for ListEntry { key, at, scenarios } in file.difference {
            // The pattern has to match the whole path, so that `/status` does not cover `/status/code`.
            let at = at.map(|at| Regex::new(&format!("^(?:{at})$"))).transpose()?;
            entries.push(KnownDifference { key, scenarios, at });
        }
        Ok(Self { entries })
    }

    /// Returns the entries, in the order of the file.
    pub fn entries(&self) -> &[KnownDifference] {
        &self.entries
    }

    /// Returns the differences of a scenario that no entry explains.
    pub fn find_unexplained<'a>(
        &self,
        scenario: &str,
        differences: &'a [Difference],
    ) -> Vec<&'a Difference> {
        let entries: Vec<_> =
            self.entries.iter().filter(|entry| entry.applies_to(scenario)).collect();
        let is_explained =
            |difference: &Difference| entries.iter().any(|entry| entry.explains(difference));
        differences.iter().filter(|difference| !is_explained(difference)).collect()
    }

    /// Returns `key: scenario` for each listed scenario in which the entry explains no difference.
    /// `found` has the differences of all scenarios.
    pub fn find_stale(&self, found: &[(String, Vec<Difference>)]) -> Vec<String> {
        let explained: HashSet<_> = found
            .iter()
            .flat_map(|(scenario, differences)| {
                let entries = self.entries.iter().enumerate();
                let explaining = entries.filter(|(_, entry)| {
                    entry.applies_to(scenario)
                        && differences.iter().any(|difference| entry.explains(difference))
                });
                explaining.map(|(index, _)| (index, scenario.as_str()))
            })
            .collect();
        let entries = self.entries.iter().enumerate();
        entries
            .flat_map(|(index, entry)| {
                let explained = &explained;
                let stale =
                    entry.scenarios.iter().filter(move |name| !explained.contains(&(index, name)));
                stale.map(|scenario| format!("{}: {scenario}", entry.key))
            })
            .collect()
    }
}

impl KnownDifference {
    fn applies_to(&self, scenario: &str) -> bool {
        self.scenarios.iter().any(|name| name == scenario)
    }

    fn explains(&self, difference: &Difference) -> bool {
        self.at.as_ref().is_none_or(|at| at.is_match(&difference.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
        [[difference]]
        key = "texts"
        at = "/status/message"
        scenarios = ["read/one", "read/two"]
    "#;

    fn difference(path: &str) -> Difference {
        let [step, recorded, got] = ["1 read", "1", "2"].map(str::to_owned);
        Difference { step, path: path.to_owned(), recorded, got }
    }

    #[test]
    fn entry_explains_only_its_scenarios_and_paths() {
        let known = KnownDifferences::parse_list(LIST).unwrap();
        let found = [difference("/status/message"), difference("/status/code")];
        assert_eq!(known.find_unexplained("read/one", &found), [&found[1]]);
        assert_eq!(known.find_unexplained("read/three", &found).len(), 2);
    }

    #[test]
    fn scenario_that_no_longer_differs_is_stale() {
        let known = KnownDifferences::parse_list(LIST).unwrap();
        let found = [
            ("read/one".to_owned(), vec![difference("/status/message")]),
            ("read/two".to_owned(), vec![difference("/status/code")]),
        ];
        assert_eq!(known.find_stale(&found), ["texts: read/two"]);
    }
}
