//! All settings, and where they come from.

use std::path::Path;

use event_log::EventStoreConfig;
use event_node::NodeConfig;
use fulfillment_worker::{FulfillmentConfig, GatewayKind};
use projectors::{ProjectorConfig, ReadModelConfig};
use serde::Deserialize;
use service_kit::address::HostPort;
use service_kit::config::{ConfigError, Layers};
use service_kit::http::ApiConfig;

use crate::cli::Role;
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

impl AuthMode {
    /// The name, as in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ApiKey => "api_key",
        }
    }
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
        layers.with_flag("--data", "node", "data", Some(&events.to_string_lossy())).with_flag(
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
    let files = Layers::new()
        .with_toml(include_str!("../../config/default.toml"))
        .with_toml(environment.file());
    let mut layers = base(files).with_environment(variables)?;
    for (flag, section, key, value) in flags {
        layers = layers.with_flag(flag, section, key, *value);
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
    #[error("`event_store.url` has `tlsVerifyCert=false`: any server could be the event store")]
    AnyCertificate,
    #[error("`{0}` has a default password")]
    DefaultPassword(&'static str),
    #[error(
        "`fulfillment.gateway` is `simulated`: orders would be fulfilled by dice; set it to `http`, \
         with `fulfillment.url`, or say `fulfillment.allow_simulated = true`"
    )]
    SimulatedGateway,
    #[error(
        "API keys would travel in the clear: `api.listen` ({0}) is not on this machine alone, and \
         there is no TLS; name `api.tls_certificate` and `api.tls_key`, or say \
         `api.behind_tls_proxy = true` if a proxy ends TLS"
    )]
    KeysInTheClear(HostPort),
}

impl Settings {
    /// Refuses what is acceptable on a desk but not where others rely on it, in a process with these
    /// roles.
    pub(crate) fn check_for_environment(&self, roles: &[Role]) -> Result<(), UnsafeSettings> {
        if self.environment != Environment::Dev && self.auth.mode == AuthMode::None {
            return Err(UnsafeSettings::NoAuth);
        }
        if self.environment != Environment::Production {
            return Ok(());
        }
        if self.event_store.url.has_default_password() {
            return Err(UnsafeSettings::DefaultPassword("event_store.url"));
        }
        if self.read_model.url.has_default_password() {
            return Err(UnsafeSettings::DefaultPassword("read_model.url"));
        }
        if self.event_store.url.sends_in_the_clear() {
            return Err(UnsafeSettings::NoTls);
        }
        if self.event_store.url.trusts_any_certificate() {
            return Err(UnsafeSettings::AnyCertificate);
        }
        if roles.contains(&Role::Worker)
            && self.fulfillment.gateway == GatewayKind::Simulated
            && !self.fulfillment.allow_simulated
        {
            return Err(UnsafeSettings::SimulatedGateway);
        }
        let ApiConfig { listen, behind_tls_proxy, .. } = &self.api;
        let is_safe = self.api.has_tls() || listen.is_loopback() || *behind_tls_proxy;
        if roles.contains(&Role::Api) && !is_safe {
            return Err(UnsafeSettings::KeysInTheClear(listen.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::ALL_ROLES;

    /// The settings of an environment's files, with these on top: section, key, value.
    fn settings(environment: Environment, given: &[(&str, &str, &str)]) -> Settings {
        let layers = Layers::new()
            .with_toml(include_str!("../../config/default.toml"))
            .with_toml(environment.file());
        let layers = given.iter().fold(layers, |layers, (section, key, value)| {
            layers.with_flag("--test", section, key, Some(value))
        });
        Settings { environment, ..layers.extract().unwrap() }
    }

    /// What production asks for that no file can know.
    const SAFE: [(&str, &str, &str); 3] = [
        ("fulfillment", "gateway", "http"),
        ("fulfillment", "url", "https://warehouse.example/orders"),
        ("api", "behind_tls_proxy", "true"),
    ];

    fn in_production(given: &[(&str, &str, &str)]) -> Result<(), UnsafeSettings> {
        let given = [&SAFE, given].concat();
        settings(Environment::Production, &given).check_for_environment(&ALL_ROLES)
    }

    #[test]
    fn files_of_every_environment_can_be_served() {
        for environment in [Environment::Dev, Environment::Staging, Environment::Production] {
            let is_production = environment == Environment::Production;
            let given = if is_production { &SAFE[..] } else { &[] };
            let settings = settings(environment, given);
            assert_eq!(settings.fulfillment.check(), Ok(()), "{}", environment.as_str());
            assert_eq!(settings.api.check(), Ok(()), "{}", environment.as_str());
            let checked = settings.check_for_environment(&ALL_ROLES);
            assert_eq!(checked, Ok(()), "{}", environment.as_str());
        }
    }

    #[test]
    fn nobody_may_use_the_api_unasked_outside_of_dev() {
        let open = [("auth", "mode", "none")];
        let checked = |environment| settings(environment, &open).check_for_environment(&[]);
        assert_eq!(checked(Environment::Dev), Ok(()));
        for environment in [Environment::Staging, Environment::Production] {
            assert_eq!(checked(environment), Err(UnsafeSettings::NoAuth));
        }
    }

    #[test]
    fn production_refuses_connections_that_are_not_safe() {
        let store = |url: &str| in_production(&[("event_store", "url", url)]);
        let default_password = UnsafeSettings::DefaultPassword("event_store.url");
        assert_eq!(store("esdb://admin:changeit@store:2113"), Err(default_password));
        assert_eq!(store("esdb://store:2113?tls=false"), Err(UnsafeSettings::NoTls));
        // Words of a local address, in that of another machine.
        let disguised = "esdb://127.0.0.1.store.example:2113?tls=false";
        assert_eq!(store(disguised), Err(UnsafeSettings::NoTls));
        let any = "esdb://store:2113?tlsVerifyCert=false";
        assert_eq!(store(any), Err(UnsafeSettings::AnyCertificate));
        assert_eq!(store("esdb://127.0.0.1:2113?tls=false"), Ok(()));
        assert_eq!(store("esdb://store:2113?connectionName=tls=false"), Ok(()));
        let rows = |url: &str| in_production(&[("read_model", "url", url)]);
        let default_password = UnsafeSettings::DefaultPassword("read_model.url");
        assert_eq!(rows("postgres://postgres:postgres@db/dofs"), Err(default_password));
        assert_eq!(rows("postgres://dofs:s3cret@db/dofs"), Ok(()));
    }

    #[test]
    fn production_does_not_fulfil_by_dice_unless_told_to() {
        let simulated = ("fulfillment", "gateway", "simulated");
        assert_eq!(in_production(&[simulated]), Err(UnsafeSettings::SimulatedGateway));
        let allowed = ("fulfillment", "allow_simulated", "true");
        assert_eq!(in_production(&[simulated, allowed]), Ok(()));
        let given = [&SAFE[..], &[simulated]].concat();
        let production = settings(Environment::Production, &given);
        assert_eq!(production.check_for_environment(&[Role::Api, Role::Projector]), Ok(()));
        let staging = settings(Environment::Staging, &given);
        assert_eq!(staging.check_for_environment(&ALL_ROLES), Ok(()));
    }

    #[test]
    fn production_takes_no_keys_in_the_clear() {
        let bare = ("api", "behind_tls_proxy", "false");
        let everywhere = "0.0.0.0:8080".parse().unwrap();
        assert_eq!(in_production(&[bare]), Err(UnsafeSettings::KeysInTheClear(everywhere)));
        for safe in [("api", "listen", "127.0.0.1:8080"), ("api", "tls_certificate", "chain.pem")] {
            assert_eq!(in_production(&[bare, safe]), Ok(()));
        }
        let given = [&SAFE[..], &[bare]].concat();
        let production = settings(Environment::Production, &given);
        assert_eq!(production.check_for_environment(&[Role::Worker]), Ok(()));
    }
}
