//! The list of intended differences between the node and the recording.

use std::{fs, io, path::Path};

use regex::Regex;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::difference::Difference;

#[derive(Debug, thiserror::Error)]
pub enum KnownDifferencesError {
    #[error("cannot read the known differences: {0}")]
    Read(#[from] io::Error),
    /// The file has another format, or a path in it is not a regular expression.
    #[error("invalid list of known differences: {0}")]
    Format(#[from] toml::de::Error),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownDifferences {
    #[serde(rename = "difference")]
    entries: Vec<KnownDifference>,
}

/// Scenarios that differ for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownDifference {
    /// Key of the row of the compatibility page that explains the difference.
    pub key: String,
    /// Family and name of each scenario.
    pub scenarios: Vec<String>,
    /// Pattern of the paths that may differ. Without it, every path may.
    #[serde(default, deserialize_with = "deserialize_path_pattern")]
    at: Option<Regex>,
}

impl KnownDifferences {
    pub fn load(path: &Path) -> Result<Self, KnownDifferencesError> {
        Ok(toml::from_str(&fs::read_to_string(path)?)?)
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
        let is_stale = |entry: &KnownDifference, scenario: &str| {
            let mut differences = found.iter().filter(|(name, _)| name == scenario);
            !differences.any(|(_, found)| found.iter().any(|one| entry.explains(one)))
        };
        let mut stale = Vec::new();
        for entry in &self.entries {
            let scenarios = entry.scenarios.iter().filter(|scenario| is_stale(entry, scenario));
            stale.extend(scenarios.map(|scenario| format!("{}: {scenario}", entry.key)));
        }
        stale
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

/// Reads a pattern that has to match a whole path, so that `/status` does not cover `/status/code`.
fn deserialize_path_pattern<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Regex>, D::Error> {
    let pattern = format!("^(?:{})$", String::deserialize(deserializer)?);
    Regex::new(&pattern).map(Some).map_err(D::Error::custom)
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
        let known = toml::from_str::<KnownDifferences>(LIST).unwrap();
        let found = [difference("/status/message"), difference("/status/code")];
        assert_eq!(known.find_unexplained("read/one", &found), [&found[1]]);
        assert_eq!(known.find_unexplained("read/three", &found).len(), 2);
    }

    #[test]
    fn scenario_that_no_longer_differs_is_stale() {
        let known = toml::from_str::<KnownDifferences>(LIST).unwrap();
        let found = [
            ("read/one".to_owned(), vec![difference("/status/message")]),
            ("read/two".to_owned(), vec![difference("/status/code")]),
        ];
        assert_eq!(known.find_stale(&found), ["texts: read/two"]);
    }
}
