//! Layered settings: compiled-in files, then environment variables, then flags.

use std::fs;

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;

/// Prefix of the environment variables that are settings: `DOFS__SECTION__KEY`.
const PREFIX: &str = "DOFS__";
/// Suffix of an environment variable that names a file with the value.
const FILE_SUFFIX: &str = "_FILE";
/// Minimum Jaro-Winkler similarity (0 to 1) of a known key that is suggested for an unknown one.
const MIN_SUGGESTION_SIMILARITY: f64 = 0.6;

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown setting `{key}` in {origin}{}", format_suggestion(.nearest.as_ref()))]
    UnknownKey { key: String, origin: String, nearest: Option<String> },
    #[error("invalid environment variable `{name}`: expected a name like `DOFS__SECTION__KEY`")]
    VariableName { name: String },
    #[error("cannot read file `{path}`, the value of `{name}`")]
    SecretFile {
        name: String,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("invalid setting `{key}` in {origin}: {reason}")]
    Value { key: String, origin: String, reason: String },
    #[error("unknown environment `{0}`: expected dev, staging or production")]
    UnknownEnvironment(String),
}

fn format_suggestion(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |key| format!(": did you mean `{key}`?"))
}

/// Settings being collected. A later layer overrides earlier ones.
pub struct Layers {
    figment: Figment,
    /// Settings of variables and flags, with their values as text.
    texts: Vec<Setting>,
}

impl Layers {
    /// Creates an empty collection.
    pub fn new() -> Self {
        Self { figment: Figment::new(), texts: Vec::new() }
    }

    /// Adds the contents of a TOML file.
    #[must_use]
    pub fn with_toml(self, toml: &str) -> Self {
        Self { figment: self.figment.merge(Toml::string(toml)), ..self }
    }

    /// Adds the `DOFS__SECTION__KEY` variables of an environment. `DOFS__SECTION__KEY_FILE` names
    /// a file that holds the value.
    pub fn with_environment(
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
            self = self.with_setting(origin, &section, &key, &value);
        }
        Ok(self)
    }

    /// Adds a flag if it has a value.
    #[must_use]
    pub fn with_flag(self, flag: &str, section: &str, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with_setting(format!("flag `{flag}`"), section, key, value),
            None => self,
        }
    }

    fn with_setting(self, origin: String, section: &str, key: &str, value: &str) -> Self {
        // figment parses numbers and booleans as TOML does; any other text stays text.
        let parsed = value.parse().unwrap_or_else(|_| Value::from(value));
        let (section, key) = (section.to_owned(), key.to_owned());
        let text = Setting { origin, section, key, value: Value::from(value) };
        let figment = self.figment.merge(Setting { value: parsed, ..text.clone() });
        Self { figment, texts: [self.texts, vec![text]].concat() }
    }

    /// Returns the settings as a value. Unknown keys are errors.
    pub fn extract<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut figment = self.figment.clone();
        loop {
            let error = match figment.extract() {
                Ok(settings) => return Ok(settings),
                Err(error) => error,
            };
            // Each turn makes another setting text, so the loop ends.
            let Some(text) = self.find_text_for(&error) else {
                return Err(to_config_error(&error));
            };
            figment = figment.merge(text.clone());
        }
    }

    /// Returns the setting as text if the error is that text was expected, e.g. for the password
    /// `1234`.
    fn find_text_for(&self, error: &Error) -> Option<&Setting> {
        let Kind::InvalidType(_, expected) = &error.kind else { return None };
        if expected != "a string" {
            return None;
        }
        let is_wanted = |text: &&Setting| error.path == [text.section.as_str(), text.key.as_str()];
        // The last layer wins, as in `Figment::merge`.
        self.texts.iter().rev().find(is_wanted)
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

fn to_config_error(error: &Error) -> ConfigError {
    let origin = match &error.metadata {
        // Only a `Setting` has a name in backquotes. Others are figment's names for the compiled-in
        // files.
        Some(metadata) if metadata.name.contains('`') => metadata.name.to_string(),
        Some(_) | None => "the configuration files".to_owned(),
    };
    let path = error.path.join(".");
    if let Kind::UnknownField(field, known) = &error.kind {
        let sections: Vec<_> = error.path.iter().filter(|part| *part != field).cloned().collect();
        let full_key = |key: &str| [sections.as_slice(), &[key.to_owned()]].concat().join(".");
        let nearest = find_nearest(field, known).map(full_key);
        return ConfigError::UnknownKey { key: full_key(field), origin, nearest };
    }
    ConfigError::Value { key: path, origin, reason: error.kind.to_string() }
}

/// Returns the known name that is most similar to the unknown one, if one is similar enough.
fn find_nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |name: &str| strsim::jaro_winkler(unknown, name);
    known
        .iter()
        .copied()
        .filter(|name| similarity(name) >= MIN_SUGGESTION_SIMILARITY)
        .max_by(|one, other| similarity(one).total_cmp(&similarity(other)))
}

/// One key of one section, and its origin for error messages.
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
    fn flags_override_environment_which_overrides_files() {
        let layers = Layers::new()
            .with_toml(FILE)
            .with_environment(variables(&[
                ("DOFS__API__LISTEN", "0.0.0.0:1"),
                ("DOFS__API__MAX_CONCURRENCY", "9"),
                ("DOFS_ENV", "dev"),
            ]))
            .unwrap()
            .with_flag("--listen", "api", "listen", Some("[::1]:2"));
        let expected = Settings { api: Api { listen: "[::1]:2".to_owned(), max_concurrency: 9 } };
        assert_eq!(layers.extract::<Settings>().unwrap(), expected);
    }

    #[test]
    fn error_of_an_unknown_key_suggests_the_nearest() {
        let layers = Layers::new()
            .with_toml(FILE)
            .with_environment(variables(&[("DOFS__API__LISTN", "0.0.0.0:1")]))
            .unwrap();
        assert_eq!(
            layers.extract::<Settings>().unwrap_err().to_string(),
            "unknown setting `api.listn` in environment variable `DOFS__API__LISTN`: \
             did you mean `api.listen`?"
        );
    }

    #[test]
    fn error_of_a_wrong_type_names_key_and_origin() {
        let layers = Layers::new()
            .with_toml(FILE)
            .with_environment(variables(&[("DOFS__API__MAX_CONCURRENCY", "many")]))
            .unwrap();
        let error = layers.extract::<Settings>().unwrap_err().to_string();
        assert!(
            error.starts_with(
                "invalid setting `api.max_concurrency` in environment variable \
                 `DOFS__API__MAX_CONCURRENCY`"
            ),
            "{error}"
        );
    }

    #[test]
    fn text_that_looks_like_a_number_stays_text() {
        let numbers = [("DOFS__API__LISTEN", "8080"), ("DOFS__API__MAX_CONCURRENCY", "9")];
        let layers = Layers::new().with_toml(FILE).with_environment(variables(&numbers)).unwrap();
        let expected = Settings { api: Api { listen: "8080".to_owned(), max_concurrency: 9 } };
        assert_eq!(layers.extract::<Settings>().unwrap(), expected);
        let later = layers.with_flag("--listen", "api", "listen", Some("true"));
        assert_eq!(later.extract::<Settings>().unwrap().api.listen, "true");
    }

    #[test]
    fn variable_with_file_suffix_reads_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "10.0.0.1:7\n").unwrap();
        let path = file.path().to_str().unwrap();
        let layers = Layers::new()
            .with_toml(FILE)
            .with_environment(variables(&[("DOFS__API__LISTEN_FILE", path)]))
            .unwrap();
        assert_eq!(layers.extract::<Settings>().unwrap().api.listen, "10.0.0.1:7");
    }

    #[test]
    fn error_of_a_missing_secret_file_names_its_variable() {
        let missing = Layers::new()
            .with_environment(variables(&[("DOFS__API__LISTEN_FILE", "/nonexistent/secret")]));
        let Err(error) = missing else { panic!("a missing file was accepted") };
        assert!(error.to_string().contains("DOFS__API__LISTEN_FILE"), "{error}");
    }
}
