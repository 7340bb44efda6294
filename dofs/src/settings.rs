//! Settings of the process: files, environment variables, flags.

mod masking;

use std::path::Path;
use std::sync::Arc;

use console::ConsoleConfig;
use event_log::EventStoreConfig;
use event_node::NodeConfig;
use fulfillment_worker::{FulfillmentConfig, GatewayKind};
use projectors::{ProjectorConfig, ReadModelConfig};
use serde::Deserialize;
use service_kit::address::HostPort;
use service_kit::config::{ConfigError, EffectiveValue, Evaluation, Layers};
use service_kit::http::ApiConfig;
use service_kit::ops::OpsConfig;

use crate::cli::{Global, Role};
use crate::process;

pub(crate) use masking::mask_setting;

/// All settings. The files in `config/` document each.
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
    pub(crate) console: ConsoleConfig,
    pub(crate) ops: OpsConfig,
    /// Environment (`DOFS_ENV`) that the settings are for. Not part of the files.
    #[serde(skip, default)]
    pub(crate) environment: Environment,
    /// The values of the settings at the start of the process and their sources, without secrets. Not part
    /// of the files.
    #[serde(skip, default)]
    pub(crate) effective: Arc<[EffectiveValue]>,
}

/// API authentication (`[auth]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthConfig {
    pub(crate) mode: AuthMode,
}

/// How API clients authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthMode {
    /// No authentication: every client has every scope. For development only.
    None,
    /// API keys, created by `dofs keys create`.
    ApiKey,
}

impl AuthMode {
    /// Returns the name that the configuration uses.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ApiKey => "api_key",
        }
    }
}

/// Deployment environment (`DOFS_ENV`).
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

    /// Returns the name that `DOFS_ENV` and `execution_arn` use.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    /// Returns name and contents of the environment's file.
    fn settings_file(self) -> (&'static str, &'static str) {
        match self {
            Self::Dev => ("dev.toml", include_str!("../../config/dev.toml")),
            Self::Staging => ("staging.toml", include_str!("../../config/staging.toml")),
            Self::Production => ("production.toml", include_str!("../../config/production.toml")),
        }
    }
}

/// Command-line flag that overrides a setting: flag, section, key, value.
pub(crate) type Flag<'a> = (&'static str, &'static str, &'static str, Option<&'a str>);

/// Loads the settings from the files, the environment variables and `flags`. Later sources override
/// earlier ones.
pub(crate) fn load(global: &Global, flags: &[Flag<'_>]) -> Result<Settings, ConfigError> {
    evaluate_layers(global, flags, |layers| layers)?.into_settings()
}

/// Loads the settings of a process whose event store and read model are in folder `data` by default.
pub(crate) fn load_for_folder(
    global: &Global,
    data: &Path,
    flags: &[Flag<'_>],
) -> Result<Settings, ConfigError> {
    let events = data.join("events");
    let read_model = format!("sqlite://{}", data.join("read-model.sqlite").display());
    let evaluation = evaluate_layers(global, flags, |layers| {
        layers.with_flag("--data", "node", "data", Some(&events.to_string_lossy())).with_flag(
            "--data",
            "read_model",
            "url",
            Some(&read_model),
        )
    });
    evaluation?.into_settings()
}

/// Returns the settings of a process without flags, the origin of each value, and all problems.
pub(crate) fn evaluate(global: &Global) -> Result<Evaluation<Settings>, ConfigError> {
    evaluate_layers(global, &[], |layers| layers)
}

fn evaluate_layers(
    global: &Global,
    flags: &[Flag<'_>],
    add_defaults: impl FnOnce(Layers) -> Layers,
) -> Result<Evaluation<Settings>, ConfigError> {
    let variables = process::environment_variables();
    let mut layers =
        Layers::new().with_toml("default.toml", include_str!("../../config/default.toml"));
    let mut environment = Environment::default();
    match Environment::from_name(variables.get("DOFS_ENV").map_or("", String::as_str)) {
        Ok(named) => environment = named,
        Err(problem) => layers = layers.with_problem(problem),
    }
    let (name, toml) = environment.settings_file();
    // Later layers override earlier ones: files, folder, file of the operator, environment
    // variables, flags.
    layers = add_defaults(layers.with_toml(name, toml));
    if let Some(path) = &global.config {
        layers = layers.with_file(path);
    }
    layers = layers.with_environment(variables);
    for (flag, section, key, value) in flags {
        layers = layers.with_flag(flag, section, key, *value);
    }
    let evaluation = layers.evaluate::<Settings>()?;
    let effective = evaluation.values.iter().cloned().map(mask_setting).collect();
    let settings = Settings { environment, effective, ..evaluation.settings };
    Ok(Evaluation { settings, ..evaluation })
}

/// Settings that are unsafe in the environment of the process.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsafeSettings {
    #[error("`auth.mode` is `none`: every client could place and read orders; set it to `api_key`")]
    NoAuth,
    #[error("`event_store.url` connects to another machine without TLS")]
    NoTls,
    #[error(
        "`event_store.url` has `tlsVerifyCert=false`: any server could impersonate the event store"
    )]
    AnyCertificate,
    #[error("`{0}` contains a default password")]
    DefaultPassword(&'static str),
    #[error(
        "`fulfillment.gateway` is `simulated`: order outcomes would be random; set it to `http` and set \
         `fulfillment.url`, or set `fulfillment.allow_simulated = true`"
    )]
    SimulatedGateway,
    #[error(
        "API keys would be sent unencrypted: `api.listen` ({0}) accepts remote connections without \
         TLS; set `api.tls_certificate` and `api.tls_key`, or set `api.behind_tls_proxy = true` if a \
         proxy terminates TLS"
    )]
    UnencryptedKeys(HostPort),
    #[error(
        "every client could read and delete all orders: `node.listen` ({0}) accepts remote \
         connections, and the event store has no users; set `node.users`, or `node.tls_client_ca`"
    )]
    OpenNode(HostPort),
    #[error(
        "passwords of the event store's users would be sent unencrypted: `node.listen` ({0}) accepts \
         remote connections without TLS; set `node.tls_certificate` and `node.tls_key`"
    )]
    UnencryptedPasswords(HostPort),
}

impl Settings {
    /// Checks that the settings are safe for a process with `roles` in its environment. `dev` permits
    /// everything.
    pub(crate) fn check_for_environment(&self, roles: &[Role]) -> Result<(), UnsafeSettings> {
        self.find_unsafe_settings(roles).into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns all reasons for which [`check_for_environment`](Self::check_for_environment) refuses
    /// the settings.
    pub(crate) fn find_unsafe_settings(&self, roles: &[Role]) -> Vec<UnsafeSettings> {
        let Self { api, event_store, read_model, fulfillment, .. } = self;
        let is_open = self.environment != Environment::Dev && self.auth.mode == AuthMode::None;
        let mut found: Vec<_> = is_open.then_some(UnsafeSettings::NoAuth).into_iter().collect();
        // Staging may use test systems and a simulated gateway.
        if self.environment != Environment::Production {
            return found;
        }
        // Only a worker calls the gateway, and only the API receives keys.
        let simulates = roles.contains(&Role::Worker)
            && fulfillment.gateway == GatewayKind::Simulated
            && !fulfillment.allow_simulated;
        let is_encrypted = api.has_tls() || api.listen.is_loopback() || api.behind_tls_proxy;
        let exposes_keys = roles.contains(&Role::Api) && !is_encrypted;
        let in_production = [
            (
                event_store.url.has_default_password(),
                UnsafeSettings::DefaultPassword("event_store.url"),
            ),
            (
                read_model.url.has_default_password(),
                UnsafeSettings::DefaultPassword("read_model.url"),
            ),
            (event_store.url.sends_in_the_clear(), UnsafeSettings::NoTls),
            (event_store.url.trusts_any_certificate(), UnsafeSettings::AnyCertificate),
            (simulates, UnsafeSettings::SimulatedGateway),
            (exposes_keys, UnsafeSettings::UnencryptedKeys(api.listen.clone())),
        ];
        found.extend(
            in_production.into_iter().filter_map(|(is_unsafe, reason)| is_unsafe.then_some(reason)),
        );
        found
    }

    /// Checks that the settings are safe for a process that runs the event store. Except in
    /// production, an unsafe setting is only logged.
    pub(crate) fn check_node_for_environment(&self) -> Result<(), UnsafeSettings> {
        let Some(unsafe_setting) = self.find_unsafe_node_setting() else { return Ok(()) };
        if self.environment == Environment::Production {
            return Err(unsafe_setting);
        }
        tracing::warn!(reason = %unsafe_setting, "Event store is not protected");
        Ok(())
    }

    fn find_unsafe_node_setting(&self) -> Option<UnsafeSettings> {
        let node = &self.node;
        let listen = || node.listen.clone();
        if node.listen.is_loopback() {
            None
        } else if node.has_users() {
            (!node.has_tls()).then(|| UnsafeSettings::UnencryptedPasswords(listen()))
        } else {
            (!node.has_client_ca()).then(|| UnsafeSettings::OpenNode(listen()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::ALL_ROLES;

    /// Returns the settings of an environment's files, overridden by `overrides`: section, key, value.
    fn settings_with(environment: Environment, overrides: &[(&str, &str, &str)]) -> Settings {
        let (name, toml) = environment.settings_file();
        let layers = Layers::new()
            .with_toml("default.toml", include_str!("../../config/default.toml"))
            .with_toml(name, toml);
        let layers = overrides.iter().fold(layers, |layers, (section, key, value)| {
            layers.with_flag("--test", section, key, Some(value))
        });
        Settings { environment, ..layers.extract().unwrap() }
    }

    /// Settings that production requires and that no file can contain.
    const REQUIRED_IN_PRODUCTION: [(&str, &str, &str); 3] = [
        ("fulfillment", "gateway", "http"),
        ("fulfillment", "url", "https://warehouse.example/orders"),
        ("api", "behind_tls_proxy", "true"),
    ];

    fn check_in_production(overrides: &[(&str, &str, &str)]) -> Result<(), UnsafeSettings> {
        let overrides = [&REQUIRED_IN_PRODUCTION, overrides].concat();
        settings_with(Environment::Production, &overrides).check_for_environment(&ALL_ROLES)
    }

    #[test]
    fn settings_files_of_every_environment_pass_all_checks() {
        for environment in [Environment::Dev, Environment::Staging, Environment::Production] {
            let is_production = environment == Environment::Production;
            let overrides = if is_production { &REQUIRED_IN_PRODUCTION[..] } else { &[] };
            let settings = settings_with(environment, overrides);
            assert_eq!(settings.fulfillment.check(), Ok(()), "{}", environment.as_str());
            assert_eq!(settings.api.check(), Ok(()), "{}", environment.as_str());
            let checked = settings.check_for_environment(&ALL_ROLES);
            assert_eq!(checked, Ok(()), "{}", environment.as_str());
        }
    }

    #[test]
    fn only_dev_permits_an_api_without_authentication() {
        let open = [("auth", "mode", "none")];
        let checked = |environment| settings_with(environment, &open).check_for_environment(&[]);
        assert_eq!(checked(Environment::Dev), Ok(()));
        for environment in [Environment::Staging, Environment::Production] {
            assert_eq!(checked(environment), Err(UnsafeSettings::NoAuth));
        }
    }

    #[test]
    fn production_rejects_unencrypted_stores_and_default_passwords() {
        let store = |url: &str| check_in_production(&[("event_store", "url", url)]);
        let default_password = UnsafeSettings::DefaultPassword("event_store.url");
        assert_eq!(store("esdb://admin:changeit@store:2113"), Err(default_password));
        assert_eq!(store("esdb://store:2113?tls=false"), Err(UnsafeSettings::NoTls));
        // The host name of another machine may begin like a loopback address.
        let disguised = "esdb://127.0.0.1.store.example:2113?tls=false";
        assert_eq!(store(disguised), Err(UnsafeSettings::NoTls));
        let any = "esdb://store:2113?tlsVerifyCert=false";
        assert_eq!(store(any), Err(UnsafeSettings::AnyCertificate));
        assert_eq!(store("esdb://127.0.0.1:2113?tls=false"), Ok(()));
        assert_eq!(store("esdb://store:2113?connectionName=tls=false"), Ok(()));
        let rows = |url: &str| check_in_production(&[("read_model", "url", url)]);
        let default_password = UnsafeSettings::DefaultPassword("read_model.url");
        assert_eq!(rows("postgres://postgres:postgres@db/dofs"), Err(default_password));
        assert_eq!(rows("postgres://dofs:s3cret@db/dofs"), Ok(()));
    }

    #[test]
    fn every_unsafe_setting_is_reported_at_once() {
        let overrides = [
            ("auth", "mode", "none"),
            ("event_store", "url", "esdb://admin:changeit@store:2113?tls=false"),
        ];
        let settings = settings_with(Environment::Production, &overrides);
        let found = settings.find_unsafe_settings(&ALL_ROLES);
        let expected = [
            UnsafeSettings::NoAuth,
            UnsafeSettings::DefaultPassword("event_store.url"),
            UnsafeSettings::NoTls,
            UnsafeSettings::SimulatedGateway,
            UnsafeSettings::UnencryptedKeys("0.0.0.0:8080".parse().unwrap()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn production_worker_rejects_the_simulated_gateway_unless_allowed() {
        let simulated = ("fulfillment", "gateway", "simulated");
        assert_eq!(check_in_production(&[simulated]), Err(UnsafeSettings::SimulatedGateway));
        let allowed = ("fulfillment", "allow_simulated", "true");
        assert_eq!(check_in_production(&[simulated, allowed]), Ok(()));
        let overrides = [&REQUIRED_IN_PRODUCTION[..], &[simulated]].concat();
        let production = settings_with(Environment::Production, &overrides);
        assert_eq!(production.check_for_environment(&[Role::Api, Role::Projector]), Ok(()));
        let staging = settings_with(Environment::Staging, &overrides);
        assert_eq!(staging.check_for_environment(&ALL_ROLES), Ok(()));
    }

    #[test]
    fn production_api_rejects_remote_connections_without_tls() {
        let bare = ("api", "behind_tls_proxy", "false");
        let everywhere = "0.0.0.0:8080".parse().unwrap();
        assert_eq!(check_in_production(&[bare]), Err(UnsafeSettings::UnencryptedKeys(everywhere)));
        for safe in [("api", "listen", "127.0.0.1:8080"), ("api", "tls_certificate", "chain.pem")] {
            assert_eq!(check_in_production(&[bare, safe]), Ok(()));
        }
        let overrides = [&REQUIRED_IN_PRODUCTION[..], &[bare]].concat();
        let production = settings_with(Environment::Production, &overrides);
        assert_eq!(production.check_for_environment(&[Role::Worker]), Ok(()));
    }

    #[test]
    fn production_node_needs_users_with_tls_or_client_certificates() {
        let everywhere = || "0.0.0.0:2113".parse().unwrap();
        let checked = |environment, overrides: &[(&str, &str, &str)]| {
            let overrides = [&[("node", "listen", "0.0.0.0:2113")], overrides].concat();
            settings_with(environment, &overrides).check_node_for_environment()
        };
        let in_production = |overrides: &[_]| checked(Environment::Production, overrides);
        let (users, tls) =
            (("node", "users", "users.json"), ("node", "tls_certificate", "chain.pem"));
        assert_eq!(in_production(&[]), Err(UnsafeSettings::OpenNode(everywhere())));
        assert_eq!(in_production(&[tls]), Err(UnsafeSettings::OpenNode(everywhere())));
        assert_eq!(
            in_production(&[users]),
            Err(UnsafeSettings::UnencryptedPasswords(everywhere()))
        );
        assert_eq!(in_production(&[users, tls]), Ok(()));
        assert_eq!(in_production(&[tls, ("node", "tls_client_ca", "ca.pem")]), Ok(()));
        assert_eq!(in_production(&[("node", "listen", "127.0.0.1:2113")]), Ok(()));
        assert_eq!(checked(Environment::Staging, &[]), Ok(()), "only logged");
    }
}
