//! Settings in layers: compiled-in files, then the environment, then flags.

use std::fs;

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;

/// What every environment variable of ours begins with: `DOFS__SECTION__KEY`.
const PREFIX: &str = "DOFS__";
/// An environment variable whose name ends so names a file that holds the value.
const FILE_SUFFIX: &str = "_FILE";
/// A known key is suggested for an unknown one if they are at least this alike (0 to 1).
const SUGGESTION_LIKENESS: f64 = 0.6;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown setting `{key}` in {origin}{}", suggestion(.nearest.as_ref()))]
    UnknownKey { key: String, origin: String, nearest: Option<String> },
    #[error("environment variable `{name}` has no section and key: write `DOFS__SECTION__KEY`")]
    VariableName { name: String },
    #[error("file `{path}` that `{name}` names cannot be read")]
    SecretFile {
        name: String,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("setting `{key}` in {origin}: {reason}")]
    Value { key: String, origin: String, reason: String },
    #[error("unknown environment `{0}`: use dev, staging or production")]
    UnknownEnvironment(String),
}

fn suggestion(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |it| format!(": did you mean `{it}`?"))
}

/// Settings under construction; what is added later wins.
pub struct Layers {
    figment: Figment,
    /// What variables and flags said, as it was written.
    written: Vec<Setting>,
}

impl Layers {
    /// No settings yet.
    pub fn new() -> Self {
        Self { figment: Figment::new(), written: Vec::new() }
    }

    /// Adds a TOML file whose text is at hand.
    #[must_use]
    pub fn file(self, toml: &str) -> Self {
        Self { figment: self.figment.merge(Toml::string(toml)), ..self }
    }

    /// Adds the `DOFS__SECTION__KEY` variables of an environment. `DOFS__SECTION__KEY_FILE` names
    /// a file that holds the value.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        for (name, value) in variables {
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            let Some((section, key)) = path.split_once("__") else {
                return Err(ConfigError::VariableName { name });
            };
            let (key, value) = match key.strip_suffix(FILE_SUFFIX) {
                Some(key) => (key, read_secret(&name, value)?),
                None => (key, value),
            };
            let (section, key) = (section.to_lowercase(), key.to_lowercase());
            let origin = format!("environment variable `{name}`");
            self = self.set(origin, &section, &key, &value);
        }
        Ok(self)
    }

    /// Adds a flag, if it was given.
    #[must_use]
    pub fn flag(self, flag: &str, section: &str, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.set(format!("flag `{flag}`"), section, key, value),
            None => self,
        }
    }

    fn set(self, origin: String, section: &str, key: &str, value: &str) -> Self {
        // Numbers and booleans are told from text as in TOML; parsing never fails.
        let parsed = value.parse().unwrap_or_else(|_| Value::from(value));
        let (section, key) = (section.to_owned(), key.to_owned());
        let written = Setting { origin, section, key, value: Value::from(value) };
        let figment = self.figment.merge(Setting { value: parsed, ..written.clone() });
        Self { figment, written: [self.written, vec![written]].concat() }
    }

    /// The settings as a value. Every key must be known.
    pub fn extract<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut figment = self.figment.clone();
        loop {
            let error = match figment.extract() {
                Ok(settings) => return Ok(settings),
                Err(error) => error,
            };
            // Each is text from then on, so this ends.
            let Some(written) = self.written_for(&error) else { return Err(describe(&error)) };
            figment = figment.merge(written.clone());
        }
    }

    /// The setting as it was written, if text was expected and it only looks like something else.
    fn written_for(&self, error: &Error) -> Option<&Setting> {
        let Kind::InvalidType(_, expected) = &error.kind else { return None };
        if expected != "a string" {
            return None;
        }
        let is_it = |it: &&Setting| error.path == [it.section.as_str(), it.key.as_str()];
        self.written.iter().rev().find(is_it)
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

fn read_secret(name: &str, path: String) -> Result<String, ConfigError> {
    match fs::read_to_string(&path) {
        Ok(secret) => Ok(secret.trim_end_matches(['\r', '\n']).to_owned()),
        Err(source) => Err(ConfigError::SecretFile { name: name.to_owned(), path, source }),
    }
}

fn describe(error: &Error) -> ConfigError {
    let origin = match &error.metadata {
        Some(metadata) if metadata.name.contains('`') => metadata.name.to_string(),
        Some(_) | None => "the configuration files".to_owned(),
    };
    let path = error.path.join(".");
    if let Kind::UnknownField(field, known) = &error.kind {
        let sections: Vec<_> = error.path.iter().filter(|it| *it != field).cloned().collect();
        let full = |key: &str| [sections.as_slice(), &[key.to_owned()]].concat().join(".");
        let nearest = nearest(field, known).map(full);
        return ConfigError::UnknownKey { key: full(field), origin, nearest };
    }
    ConfigError::Value { key: path, origin, reason: error.kind.to_string() }
}

/// The known name that is most like the unknown one, if any is.
fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |name: &str| strsim::jaro_winkler(unknown, name);
    known
        .iter()
        .copied()
        .filter(|name| likeness(name) >= SUGGESTION_LIKENESS)
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}

/// One key of one section, and where it came from.
#[derive(Clone)]
struct Setting {
    origin: String,
    section: String,
    key: String,
    value: Value,
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let keys = Dict::from([(self.key.clone(), self.value.clone())]);
        let sections = Dict::from([(self.section.clone(), Value::from(keys))]);
        Ok(Map::from([(Profile::Default, sections)]))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        api: Api,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Api {
        listen: String,
        max_concurrency: u32,
    }

    const FILE: &str = "[api]\nlisten = '127.0.0.1:8080'\nmax_concurrency = 7\n";

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_files() {
        let layers = Layers::new()
            .file(FILE)
            .environment(variables(&[
                ("DOFS__API__LISTEN", "0.0.0.0:1"),
                ("DOFS__API__MAX_CONCURRENCY", "9"),
                ("DOFS_ENV", "dev"),
            ]))
            .unwrap()
            .flag("--listen", "api", "listen", Some("[::1]:2"));
        let expected = Settings { api: Api { listen: "[::1]:2".to_owned(), max_concurrency: 9 } };
        assert_eq!(layers.extract::<Settings>().unwrap(), expected);
    }

    #[test]
    fn unknown_key_is_an_error_that_names_the_nearest_known_one() {
        let layers = Layers::new()
            .file(FILE)
            .environment(variables(&[("DOFS__API__LISTN", "0.0.0.0:1")]))
            .unwrap();
        assert_eq!(
            layers.extract::<Settings>().unwrap_err().to_string(),
            "unknown setting `api.listn` in environment variable `DOFS__API__LISTN`: \
             did you mean `api.listen`?"
        );
    }

    #[test]
    fn value_of_the_wrong_type_is_an_error_that_names_key_and_origin() {
        let layers = Layers::new()
            .file(FILE)
            .environment(variables(&[("DOFS__API__MAX_CONCURRENCY", "many")]))
            .unwrap();
        let error = layers.extract::<Settings>().unwrap_err().to_string();
        assert!(
            error.starts_with(
                "setting `api.max_concurrency` in environment variable \
                 `DOFS__API__MAX_CONCURRENCY`"
            ),
            "{error}"
        );
    }

    #[test]
    fn text_that_looks_like_a_number_is_text_where_text_is_meant() {
        let numbers = [("DOFS__API__LISTEN", "8080"), ("DOFS__API__MAX_CONCURRENCY", "9")];
        let layers = Layers::new().file(FILE).environment(variables(&numbers)).unwrap();
        let expected = Settings { api: Api { listen: "8080".to_owned(), max_concurrency: 9 } };
        assert_eq!(layers.extract::<Settings>().unwrap(), expected);
        let later = layers.flag("--listen", "api", "listen", Some("true"));
        assert_eq!(later.extract::<Settings>().unwrap().api.listen, "true");
    }

    #[test]
    fn secret_is_read_from_the_file_that_the_variable_names() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "10.0.0.1:7\n").unwrap();
        let path = file.path().to_str().unwrap();
        let layers = Layers::new()
            .file(FILE)
            .environment(variables(&[("DOFS__API__LISTEN_FILE", path)]))
            .unwrap();
        assert_eq!(layers.extract::<Settings>().unwrap().api.listen, "10.0.0.1:7");
    }

    #[test]
    fn secret_file_that_is_missing_is_named() {
        let missing = Layers::new()
            .environment(variables(&[("DOFS__API__LISTEN_FILE", "/nonexistent/secret")]));
        let Err(error) = missing else { panic!("a missing file was accepted") };
        assert!(error.to_string().contains("DOFS__API__LISTEN_FILE"), "{error}");
    }
}
