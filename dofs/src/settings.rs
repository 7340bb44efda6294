//! All settings, and where they come from.

use std::path::Path;

use event_log::EventStoreConfig;
use event_node::NodeConfig;
use fulfillment_worker::FulfillmentConfig;
use projectors::{ProjectorConfig, ReadModelConfig};
use serde::Deserialize;
use service_kit::config::{ConfigError, Layers};
use service_kit::http::ApiConfig;

use crate::process;

/// Every setting. The files under `config/` are the reference.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) api: ApiConfig,
    pub(crate) event_store: EventStoreConfig,
    pub(crate) node: NodeConfig,
    pub(crate) read_model: ReadModelConfig,
    pub(crate) fulfillment: FulfillmentConfig,
    pub(crate) projector: ProjectorConfig,
    pub(crate) auth: AuthConfig,
    /// Which environment the settings are for; not a setting itself.
    #[serde(skip, default)]
    pub(crate) environment: Environment,
}

/// Who may use the API (`[auth]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthConfig {
    pub(crate) mode: AuthMode,
}

/// How users of the API show who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthMode {
    /// Not at all: everybody may do everything. On a desk only.
    None,
    /// By an API key; `dofs keys` makes them.
    ApiKey,
}

/// Where this installation stands (`DOFS_ENV`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Environment {
    #[default]
    Dev,
    Staging,
    Production,
}

impl Environment {
    fn from_name(name: &str) -> Result<Self, ConfigError> {
        match name {
            "" | "dev" => Ok(Self::Dev),
            "staging" => Ok(Self::Staging),
            "production" => Ok(Self::Production),
            other => Err(ConfigError::UnknownEnvironment(other.to_owned())),
        }
    }

    /// The name, as in `DOFS_ENV` and `execution_arn`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Dev => include_str!("../../config/dev.toml"),
            Self::Staging => include_str!("../../config/staging.toml"),
            Self::Production => include_str!("../../config/production.toml"),
        }
    }
}

/// Flags that are settings: name, section, key, value.
pub(crate) type Flag<'a> = (&'static str, &'static str, &'static str, Option<&'a str>);

/// The settings of this process: files, environment, flags.
pub(crate) fn load(flags: &[Flag<'_>]) -> Result<Settings, ConfigError> {
    with_base(flags, |layers| layers)
}

/// The same for a process that keeps everything in one folder, unless it is told otherwise.
pub(crate) fn load_for_folder(data: &Path, flags: &[Flag<'_>]) -> Result<Settings, ConfigError> {
    let events = data.join("events");
    let read_model = format!("sqlite://{}", data.join("read-model.sqlite").display());
    with_base(flags, |layers| {
        layers.flag("--data", "node", "data", Some(&events.to_string_lossy())).flag(
            "--data",
            "read_model",
            "url",
            Some(&read_model),
        )
    })
}

fn with_base(
    flags: &[Flag<'_>],
    base: impl FnOnce(Layers) -> Layers,
) -> Result<Settings, ConfigError> {
    let variables = process::environment();
    let environment = Environment::from_name(variables.get("DOFS_ENV").map_or("", String::as_str))?;
    let files =
        Layers::new().file(include_str!("../../config/default.toml")).file(environment.file());
    let mut layers = base(files).environment(variables)?;
    for (flag, section, key, value) in flags {
        layers = layers.flag(flag, section, key, *value);
    }
    Ok(Settings { environment, ..layers.extract()? })
}

/// Why this process must not serve in its environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsafeSettings {
    #[error("`auth.mode` is `none`: everybody could place and read orders; use `api_key`")]
    NoAuth,
    #[error("`event_store.url` has no TLS and is not on this machine")]
    NoTls,
    #[error("`{0}` has a default password")]
    DefaultPassword(&'static str),
}

impl Settings {
    /// Refuses what is acceptable on a desk but not where others rely on it.
    pub(crate) fn check_for_environment(&self) -> Result<(), UnsafeSettings> {
        if self.environment != Environment::Dev && self.auth.mode == AuthMode::None {
            return Err(UnsafeSettings::NoAuth);
        }
        if self.environment != Environment::Production {
            return Ok(());
        }
        let urls =
            [("event_store.url", &self.event_store.url), ("read_model.url", &self.read_model.url)];
        for (key, url) in urls {
            if DEFAULT_PASSWORDS.iter().any(|it| url.contains(it)) {
                return Err(UnsafeSettings::DefaultPassword(key));
            }
        }
        let store = self.event_store.url.to_lowercase();
        if store.contains("tls=false") && !LOOPBACK.iter().any(|it| store.contains(it)) {
            return Err(UnsafeSettings::NoTls);
        }
        Ok(())
    }
}

/// User and password that EventStoreDB and PostgreSQL are set up with in every tutorial.
const DEFAULT_PASSWORDS: [&str; 2] = ["admin:changeit@", "postgres:postgres@"];
const LOOPBACK: [&str; 3] = ["//127.0.0.1", "//localhost", "//[::1]"];

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(environment: Environment, store: &str, auth: &str) -> Settings {
        let layers = Layers::new()
            .file(include_str!("../../config/default.toml"))
            .file(environment.file())
            .flag("--test", "event_store", "url", Some(store))
            .flag("--test", "auth", "mode", Some(auth));
        Settings { environment, ..layers.extract().unwrap() }
    }

    #[test]
    fn files_of_every_environment_can_be_served() {
        for environment in [Environment::Dev, Environment::Staging, Environment::Production] {
            let layers = Layers::new()
                .file(include_str!("../../config/default.toml"))
                .file(environment.file());
            let settings = Settings { environment, ..layers.extract().unwrap() };
            assert_eq!(settings.fulfillment.check(), Ok(()), "{}", environment.as_str());
            assert_eq!(settings.api.check(), Ok(()), "{}", environment.as_str());
            assert_eq!(settings.check_for_environment(), Ok(()), "{}", environment.as_str());
        }
    }

    #[test]
    fn environments_refuse_what_is_not_safe() {
        let checked =
            |environment, store, auth| settings(environment, store, auth).check_for_environment();
        let in_production = |store| checked(Environment::Production, store, "api_key");
        let default_password = UnsafeSettings::DefaultPassword("event_store.url");
        assert_eq!(in_production("esdb://admin:changeit@store:2113"), Err(default_password));
        assert_eq!(in_production("esdb://store:2113?tls=false"), Err(UnsafeSettings::NoTls));
        let local = "esdb://127.0.0.1:2113?tls=false";
        assert_eq!(in_production(local), Ok(()));
        assert_eq!(checked(Environment::Dev, local, "none"), Ok(()));
        for environment in [Environment::Staging, Environment::Production] {
            assert_eq!(checked(environment, local, "none"), Err(UnsafeSettings::NoAuth));
        }
    }
}
