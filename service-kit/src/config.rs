//! Layered settings: compiled-in files, a configuration file, environment variables, flags.

mod error;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use figment::error::{Error, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use error::to_config_error;

pub use error::{ConfigError, SettingOrigin};

/// Prefix of the environment variables that are settings: `DOFS__SECTION__KEY`.
const PREFIX: &str = "DOFS__";
/// Suffix of an environment variable that names a file with the value.
const FILE_SUFFIX: &str = "_FILE";

/// Value of a setting after all layers.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveValue {
    pub section: String,
    pub key: String,
    pub value: serde_json::Value,
    pub origin: SettingOrigin,
}

/// Settings with everything that is wrong with their layers.
#[derive(Debug)]
pub struct Evaluation<T> {
    /// The settings. An invalid value is replaced by the value of a lower layer.
    pub settings: T,
    /// The values in `settings`, ordered by section and key.
    pub values: Vec<EffectiveValue>,
    pub problems: Vec<ConfigError>,
}

impl<T> Evaluation<T> {
    /// Returns the settings if the layers have no problem, and the first problem otherwise.
    pub fn into_settings(self) -> Result<T, ConfigError> {
        self.problems.into_iter().next().map_or(Ok(self.settings), Err)
    }
}

/// Settings being collected. A later layer overrides earlier ones.
#[derive(Default)]
pub struct Layers {
    /// Values of all layers, the lowest layer first.
    entries: Vec<Entry>,
    /// Problems found while the layers were added.
    problems: Vec<ConfigError>,
}

/// Value of one setting in one layer.
struct Entry {
    origin: SettingOrigin,
    section: String,
    key: String,
    value: Value,
    /// The value as the variable or flag contains it.
    text: Option<String>,
}

impl Layers {
    /// Creates an empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the contents of a TOML file that is compiled into the binary.
    #[must_use]
    pub fn with_toml(self, name: &'static str, toml: &str) -> Self {
        self.with_file_contents(&SettingOrigin::BuiltIn(name), toml)
    }

    /// Adds a TOML file.
    #[must_use]
    pub fn with_file(self, path: &Path) -> Self {
        let path = path.to_owned();
        match fs::read_to_string(&path) {
            Ok(toml) => self.with_file_contents(&SettingOrigin::File(path), &toml),
            Err(source) => self.with_problem(ConfigError::File { path, source }),
        }
    }

    /// Adds the `DOFS__SECTION__KEY` variables of an environment. `DOFS__SECTION__KEY_FILE` names
    /// a file that holds the value.
    #[must_use]
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        for (name, value) in variables {
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            self = match parse_variable(path, &name, value) {
                Ok((section, key, value)) => {
                    self.with_text(SettingOrigin::Variable(name), &section, &key, &value)
                }
                Err(problem) => self.with_problem(problem),
            };
        }
        self
    }

    /// Adds a flag if it has a value.
    #[must_use]
    pub fn with_flag(
        self,
        flag: &'static str,
        section: &str,
        key: &str,
        value: Option<&str>,
    ) -> Self {
        match value {
            Some(value) => self.with_text(SettingOrigin::Flag(flag), section, key, value),
            None => self,
        }
    }

    /// Adds a problem that was found outside the layers.
    #[must_use]
    pub fn with_problem(mut self, problem: ConfigError) -> Self {
        self.problems.push(problem);
        self
    }

    fn with_file_contents(mut self, origin: &SettingOrigin, toml: &str) -> Self {
        let sections: Dict = match Toml::from_str(toml) {
            Ok(sections) => sections,
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let line = 1 + toml.bytes().take(start).filter(|byte| *byte == b'\n').count();
                // The error's `Display` quotes the line, which may contain a password.
                let reason = error.message().to_owned();
                let origin = origin.clone();
                return self.with_problem(ConfigError::Syntax { origin, line, reason });
            }
        };
        for (section, value) in sections {
            let origin = origin.clone();
            let Value::Dict(_, keys) = value else {
                let reason = format!("expected a section `[{section}]`");
                self.problems.push(ConfigError::Value { key: section, origin, reason });
                continue;
            };
            self.entries.extend(keys.into_iter().map(|(key, value)| Entry {
                origin: origin.clone(),
                section: section.clone(),
                key,
                value,
                text: None,
            }));
        }
        self
    }

    fn with_text(mut self, origin: SettingOrigin, section: &str, key: &str, text: &str) -> Self {
        self.entries.push(Entry {
            origin,
            section: section.to_owned(),
            key: key.to_owned(),
            // figment parses numbers and booleans as TOML does; any other text stays text.
            value: text.parse().unwrap_or_else(|_| Value::from(text)),
            text: Some(text.to_owned()),
        });
        self
    }

    /// Returns the settings. Unknown keys and invalid values are errors.
    ///
    /// # Errors
    /// The first problem.
    pub fn extract<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        self.evaluate()?.into_settings()
    }

    /// Returns the settings and all problems of the layers.
    ///
    /// # Errors
    /// [`ConfigError::Incomplete`] if no layer has a valid value of a required setting.
    pub fn evaluate<T: DeserializeOwned>(self) -> Result<Evaluation<T>, ConfigError> {
        let Self { mut entries, mut problems } = self;
        loop {
            let error = match merge(&entries).deserialize() {
                Ok(settings) => {
                    return Ok(Evaluation { settings, values: to_values(entries), problems });
                }
                Err(error) => error,
            };
            let is_missing = matches!(error.kind, Kind::MissingField(_));
            // The last layer wins, so its value is the invalid one.
            let entry = entries.iter_mut().rev().find(|entry| entry.is_at(&error.path));
            let Some(entry) = entry.filter(|_| !is_missing) else {
                return Err(ConfigError::Incomplete(error.to_string()));
            };
            // A password such as `1234` is parsed as a number.
            if is_text_expected(&error)
                && let Some(text) = entry.text.take()
            {
                entry.value = Value::from(text);
                continue;
            }
            // Each turn removes a value or the parsed form of one, so the loop ends.
            let origin = entry.origin.clone();
            entries.retain(|entry| entry.origin != origin || !entry.is_at(&error.path));
            problems.push(to_config_error(&error, origin));
        }
    }
}

impl Entry {
    /// Returns whether the value is at this path of the settings, or in this section.
    fn is_at(&self, path: &[String]) -> bool {
        path.first() == Some(&self.section) && path.get(1).is_none_or(|key| *key == self.key)
    }
}

/// Returns the settings as one value. Later entries override earlier ones.
fn merge(entries: &[Entry]) -> Value {
    let mut sections = BTreeMap::<_, Dict>::new();
    for Entry { section, key, value, .. } in entries {
        sections.entry(section.clone()).or_default().insert(key.clone(), value.clone());
    }
    Value::from(sections)
}

fn to_values(entries: Vec<Entry>) -> Vec<EffectiveValue> {
    let mut values = BTreeMap::new();
    for Entry { origin, section, key, value, .. } in entries {
        let value = serde_json::to_value(&value).unwrap_or_default();
        let path = (section.clone(), key.clone());
        values.insert(path, EffectiveValue { section, key, value, origin });
    }
    values.into_values().collect()
}

/// Returns section, key and value of the variable `PREFIX` + `path`.
fn parse_variable(
    path: &str,
    name: &str,
    value: String,
) -> Result<(String, String, String), ConfigError> {
    let Some((section, key)) = path.split_once("__") else {
        return Err(ConfigError::VariableName { name: name.to_owned() });
    };
    let (key, value) = match key.strip_suffix(FILE_SUFFIX) {
        Some(key) => (key, read_secret(name, value)?),
        None => (key, value),
    };
    Ok((section.to_lowercase(), key.to_lowercase(), value))
}

fn read_secret(name: &str, path: String) -> Result<String, ConfigError> {
    match fs::read_to_string(&path) {
        Ok(secret) => Ok(secret.trim_end_matches(['\r', '\n']).to_owned()),
        Err(source) => Err(ConfigError::SecretFile { name: name.to_owned(), path, source }),
    }
}

/// Returns whether the error is that the value of a setting, and not a part of it, must be text.
fn is_text_expected(error: &Error) -> bool {
    let is_setting = error.path.len() == 2;
    is_setting && matches!(&error.kind, Kind::InvalidType(_, expected) if expected == "a string")
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

    /// Returns the built-in file, overridden by these variables.
    fn layers(pairs: &[(&str, &str)]) -> Layers {
        Layers::new().with_toml("default.toml", FILE).with_environment(variables(pairs))
    }

    fn write_file(contents: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), contents).unwrap();
        file
    }

    fn problems(layers: Layers) -> Vec<String> {
        let problems = layers.evaluate::<Settings>().unwrap().problems;
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_override_environment_which_overrides_files() {
        let layers = layers(&[
            ("DOFS__API__LISTEN", "0.0.0.0:1"),
            ("DOFS__API__MAX_CONCURRENCY", "9"),
            ("DOFS_ENV", "dev"),
        ]);
        let layers = layers.with_flag("--listen", "api", "listen", Some("[::1]:2"));
        let expected = Settings { api: Api { listen: "[::1]:2".to_owned(), max_concurrency: 9 } };
        assert_eq!(layers.extract::<Settings>().unwrap(), expected);
    }

    #[test]
    fn every_value_has_the_origin_of_its_highest_layer() {
        // Given a built-in file, a file, a variable and a flag that each set the address
        let file = write_file("[api]\nlisten = 'b:1'\nmax_concurrency = 8");
        let built_in = || Layers::new().with_toml("default.toml", FILE);
        let with_file = || built_in().with_file(file.path());
        let variable = [("DOFS__API__LISTEN", "c:1")];
        let with_variable = || with_file().with_environment(variables(&variable));
        let with_flag = with_variable().with_flag("--listen", "api", "listen", Some("d:1"));
        // When the layers are evaluated
        let evaluated = |layers: Layers| layers.evaluate::<Settings>().unwrap().values;
        // Then each value is that of the highest layer that sets it, with its origin
        let from_file = SettingOrigin::File(file.path().to_owned());
        for (layers, listen, listen_origin, concurrency, concurrency_origin) in [
            (
                built_in(),
                "127.0.0.1:8080",
                SettingOrigin::BuiltIn("default.toml"),
                7,
                SettingOrigin::BuiltIn("default.toml"),
            ),
            (with_file(), "b:1", from_file.clone(), 8, from_file.clone()),
            (
                with_variable(),
                "c:1",
                SettingOrigin::Variable("DOFS__API__LISTEN".to_owned()),
                8,
                from_file.clone(),
            ),
            (with_flag, "d:1", SettingOrigin::Flag("--listen"), 8, from_file.clone()),
        ] {
            let value = |key: &str, value: serde_json::Value, origin| EffectiveValue {
                section: "api".to_owned(),
                key: key.to_owned(),
                value,
                origin,
            };
            let expected = [
                value("listen", listen.into(), listen_origin),
                value("max_concurrency", concurrency.into(), concurrency_origin),
            ];
            assert_eq!(evaluated(layers), expected);
        }
    }

    #[test]
    fn all_problems_of_all_layers_are_reported() {
        let file = write_file("top = 1\n[api]\nlisten = 1\nmax_concurency = 8\n[spi]\nlisten = 2");
        let layers = Layers::new().with_toml("default.toml", FILE).with_file(file.path());
        let layers = layers.with_environment(variables(&[
            ("DOFS__API__MAX_CONCURRENCY", "many"),
            ("DOFS__LISTEN", "x"),
            ("DOFS__API__LISTEN_FILE", "/nonexistent/secret"),
        ]));
        let evaluation = layers.evaluate::<Settings>().unwrap();
        let expected =
            Settings { api: Api { listen: "127.0.0.1:8080".into(), max_concurrency: 7 } };
        assert_eq!(evaluation.settings, expected);
        let path = file.path().display();
        let expected = [
            format!("invalid setting `top` in file `{path}`: expected a section `[top]`"),
            "cannot read file `/nonexistent/secret`, the value of `DOFS__API__LISTEN_FILE`".into(),
            "invalid environment variable `DOFS__LISTEN`: expected a name like `DOFS__SECTION__KEY`"
                .into(),
            format!("unknown setting `api.max_concurency` in file `{path}`: did you mean `api.max_concurrency`?"),
        ];
        let found: Vec<_> = evaluation.problems.iter().map(ToString::to_string).collect();
        for problem in expected {
            assert!(found.contains(&problem), "`{problem}` is not in {found:#?}");
        }
        for start in [
            format!("invalid setting `api.listen` in file `{path}`: "),
            "invalid setting `api.max_concurrency` in environment variable ".to_owned(),
            format!("unknown setting `spi` in file `{path}`: did you mean `api`?"),
        ] {
            let n_found = found.iter().filter(|problem| problem.starts_with(&start)).count();
            assert_eq!(n_found, 1, "`{start}` in {found:#?}");
        }
        assert_eq!(found.len(), 7, "{found:#?}");
    }

    #[test]
    fn missing_or_malformed_file_is_a_problem_without_its_secrets() {
        let missing =
            Layers::new().with_toml("default.toml", FILE).with_file(Path::new("/no/file"));
        assert_eq!(problems(missing), ["cannot read configuration file `/no/file`"]);
        let file = write_file("[api]\nlisten = 'x\nmax_concurrency = s3cret'\n");
        let malformed = Layers::new().with_toml("default.toml", FILE).with_file(file.path());
        let found = problems(malformed);
        let start = format!("invalid TOML in file `{}`, line 2: ", file.path().display());
        assert!(found.len() == 1 && found[0].starts_with(&start), "{found:?}");
        assert!(!found[0].contains("s3cret"), "{found:?}");
    }

    #[test]
    fn missing_required_setting_is_an_error() {
        let layers = Layers::new().with_toml("default.toml", "[api]\nlisten = 'x'");
        let error = layers.extract::<Settings>().unwrap_err().to_string();
        assert!(error.contains("incomplete") && error.contains("max_concurrency"), "{error}");
    }

    #[test]
    fn error_of_an_unknown_key_suggests_the_nearest() {
        let layers = layers(&[("DOFS__API__LISTN", "0.0.0.0:1")]);
        assert_eq!(
            layers.extract::<Settings>().unwrap_err().to_string(),
            "unknown setting `api.listn` in environment variable `DOFS__API__LISTN`: \
             did you mean `api.listen`?"
        );
    }

    #[test]
    fn text_that_looks_like_a_number_stays_text() {
        let numbers = [("DOFS__API__LISTEN", "8080"), ("DOFS__API__MAX_CONCURRENCY", "9")];
        let evaluation = layers(&numbers).evaluate::<Settings>().unwrap();
        let expected = Settings { api: Api { listen: "8080".to_owned(), max_concurrency: 9 } };
        assert_eq!(evaluation.settings, expected);
        assert_eq!(evaluation.values[0].value, "8080");
        let later = layers(&numbers).with_flag("--listen", "api", "listen", Some("true"));
        assert_eq!(later.extract::<Settings>().unwrap().api.listen, "true");
    }

    #[test]
    fn variable_with_file_suffix_reads_the_file() {
        let file = write_file("10.0.0.1:7\n");
        let path = file.path().to_str().unwrap();
        let layers = layers(&[("DOFS__API__LISTEN_FILE", path)]);
        assert_eq!(layers.extract::<Settings>().unwrap().api.listen, "10.0.0.1:7");
    }
}
