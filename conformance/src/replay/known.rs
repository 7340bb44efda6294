//! Differences between a server and the recording that are there on purpose.

use std::{collections::HashSet, fs, io, path::Path};

use regex::Regex;
use serde::Deserialize;

use super::compare::Difference;

/// Why the list of known differences cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// The file is unreadable.
    #[error("cannot read the known differences: {0}")]
    Read(#[from] io::Error),
    /// The file has another form.
    #[error("invalid list of known differences: {0}")]
    Form(#[from] toml::de::Error),
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
    /// Names the row of the compatibility page that explains the difference.
    pub key: String,
    /// Family and name of each scenario.
    pub scenarios: Vec<String>,
    /// Where the answers may differ; everywhere if absent.
    at: Option<Regex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    difference: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
    at: Option<String>,
    scenarios: Vec<String>,
}

impl KnownDifferences {
    /// Reads the list.
    pub fn load(path: &Path) -> Result<Self, KnownError> {
        Self::parse(&fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self, KnownError> {
        let file: File = toml::from_str(text)?;
        let mut entries = Vec::new();
        for Entry { key, at, scenarios } in file.difference {
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
    pub fn unexplained<'a>(
        &self,
        scenario: &str,
        differences: &'a [Difference],
    ) -> Vec<&'a Difference> {
        let entries: Vec<_> = self.entries.iter().filter(|entry| entry.names(scenario)).collect();
        let is_explained =
            |difference: &Difference| entries.iter().any(|entry| entry.covers(difference));
        differences.iter().filter(|difference| !is_explained(difference)).collect()
    }

    /// Returns `key: scenario` for each scenario of the list in which the entry explains nothing.
    /// `found` has the differences of all scenarios.
    pub fn stale(&self, found: &[(String, Vec<Difference>)]) -> Vec<String> {
        let explained: HashSet<_> = found
            .iter()
            .flat_map(|(scenario, differences)| {
                let entries = self.entries.iter().enumerate();
                let explaining = entries.filter(|(_, entry)| {
                    entry.names(scenario) && differences.iter().any(|it| entry.covers(it))
                });
                explaining.map(|(index, _)| (index, scenario.as_str()))
            })
            .collect();
        let entries = self.entries.iter().enumerate();
        entries
            .flat_map(|(index, entry)| {
                let explained = &explained;
                let stale =
                    entry.scenarios.iter().filter(move |it| !explained.contains(&(index, it)));
                stale.map(|scenario| format!("{}: {scenario}", entry.key))
            })
            .collect()
    }
}

impl KnownDifference {
    fn names(&self, scenario: &str) -> bool {
        self.scenarios.iter().any(|name| name == scenario)
    }

    fn covers(&self, difference: &Difference) -> bool {
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
        let [step, wanted, got] = ["1 read", "1", "2"].map(str::to_owned);
        Difference { step, path: path.to_owned(), wanted, got }
    }

    #[test]
    fn entry_explains_only_its_scenarios_and_paths() {
        let known = KnownDifferences::parse(LIST).unwrap();
        let found = [difference("/status/message"), difference("/status/code")];
        assert_eq!(known.unexplained("read/one", &found), [&found[1]]);
        assert_eq!(known.unexplained("read/three", &found).len(), 2);
    }

    #[test]
    fn scenario_that_no_longer_differs_is_stale() {
        let known = KnownDifferences::parse(LIST).unwrap();
        let found = [
            ("read/one".to_owned(), vec![difference("/status/message")]),
            ("read/two".to_owned(), vec![difference("/status/code")]),
        ];
        assert_eq!(known.stale(&found), ["texts: read/two"]);
    }
}
