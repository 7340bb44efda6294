//! Errors of settings, and the sources of their values.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use figment::error::{Error, Kind};

/// Minimum Jaro-Winkler similarity (0 to 1) of a known key that is suggested for an unknown one.
const MIN_SUGGESTION_SIMILARITY: f64 = 0.6;

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown setting `{key}` in {origin}{}", format_suggestion(.nearest.as_ref()))]
    UnknownKey { key: String, origin: SettingOrigin, nearest: Option<String> },
    #[error("invalid environment variable `{name}`: expected a name like `DOFS__SECTION__KEY`")]
    VariableName { name: String },
    #[error("cannot read file `{path}`, the value of `{name}`")]
    SecretFile {
        name: String,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read configuration file `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("invalid TOML in {origin}, line {line}: {reason}")]
    Syntax { origin: SettingOrigin, line: usize, reason: String },
    #[error("invalid setting `{key}` in {origin}: {reason}")]
    Value { key: String, origin: SettingOrigin, reason: String },
    #[error("incomplete settings: {0}")]
    Incomplete(String),
    #[error("unknown environment `{0}`: expected dev, staging or production")]
    UnknownEnvironment(String),
}

impl ConfigError {
    /// Returns the setting, as `section.key`, whose value is invalid.
    pub fn invalid_key(&self) -> Option<&str> {
        if let Self::Value { key, .. } = self { Some(key) } else { None }
    }
}

fn format_suggestion(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |key| format!(": did you mean `{key}`?"))
}

/// Source of a setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingOrigin {
    /// File that is compiled into the binary, e.g. `default.toml`.
    BuiltIn(&'static str),
    File(PathBuf),
    /// Environment variable; it may name a file with the value.
    Variable(String),
    Flag(&'static str),
}

impl SettingOrigin {
    /// Returns the name of the file, variable or flag.
    pub fn name(&self) -> String {
        match self {
            Self::BuiltIn(name) | Self::Flag(name) => (*name).to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Variable(name) => name.clone(),
        }
    }
}

impl Display for SettingOrigin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => write!(f, "built-in file `{name}`"),
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Variable(name) => write!(f, "environment variable `{name}`"),
            Self::Flag(name) => write!(f, "flag `{name}`"),
        }
    }
}

/// Converts an error of a value from `origin`.
pub(super) fn to_config_error(error: &Error, origin: SettingOrigin) -> ConfigError {
    let key = error.path.join(".");
    if let Kind::UnknownField(field, known) = &error.kind {
        let parent = error.path.iter().take(error.path.len().saturating_sub(1));
        let full_key =
            |known: &str| parent.cloned().chain([known.to_owned()]).collect::<Vec<_>>().join(".");
        let nearest = find_nearest(field, known).map(full_key);
        return ConfigError::UnknownKey { key, origin, nearest };
    }
    ConfigError::Value { key, origin, reason: error.kind.to_string() }
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
