//! The stores that a command accesses without the API. The command prints their addresses before it
//! starts, so that the user notices a result about the wrong store.

use std::fmt::Display;

use event_log::{EventLog, EventStoreUrl};
use projectors::{ReadModel, ReadModelUrl};
use serde_json::{Map, Value, json};

use crate::cli::Global;
use crate::error::CliError;
use crate::output::{print_notice, print_result};
use crate::settings::Settings;
use crate::system::event_producer;

/// The stores that a command accesses, for its JSON result.
#[derive(Default)]
pub(crate) struct TargetStores {
    members: Map<String, Value>,
}

impl TargetStores {
    /// Connects to the configured event store as `client_name` and announces it.
    pub(crate) async fn open_event_log(
        &mut self,
        settings: &Settings,
        client_name: &str,
        global: &Global,
    ) -> Result<EventLog, CliError> {
        let url = &settings.event_store.url;
        if url.is_empty() {
            return Err(CliError::NoEventStore);
        }
        let log = EventLog::connect(&settings.event_store, event_producer(), client_name)?;
        self.announce_event_store("event_store", url, &log, global).await?;
        Ok(log)
    }

    /// Announces the event store behind `log`, and adds it to the JSON result as member `role`.
    pub(crate) async fn announce_event_store(
        &mut self,
        role: &str,
        url: &EventStoreUrl,
        log: &EventLog,
        global: &Global,
    ) -> Result<(), CliError> {
        // Announced even if the store is unreachable: the address explains the error.
        let store_id = log.store().store_id().await;
        let id = match &store_id {
            Ok(Some(id)) => format!(", store {id}"),
            Ok(None) => ", without events".to_owned(),
            Err(_) => String::new(),
        };
        print_announcement(format!("{}: {url}{id}", role.replace('_', " ")), global);
        // Fails only now, after the address was printed.
        let member = json!({"address": url.to_string(), "store_id": store_id?});
        self.members.insert(role.to_owned(), member);
        Ok(())
    }

    /// Announces the read model and its schema version, and adds them to the JSON result.
    pub(crate) async fn announce_read_model(
        &mut self,
        url: &ReadModelUrl,
        store: &ReadModel,
        global: &Global,
    ) -> Result<(), CliError> {
        let version = store.schema_version().await;
        let schema = match &version {
            Ok(Some(version)) => format!(", schema version {version}"),
            Ok(None) => ", without tables".to_owned(),
            Err(_) => String::new(),
        };
        print_announcement(format!("read model: {url}{schema}"), global);
        let member = json!({"address": url.to_string(), "schema_version": version?});
        self.members.insert("read_model".to_owned(), member);
        Ok(())
    }

    /// Prints a result as [`print_json`](Self::print_json) does with `--json`, and as text otherwise.
    pub(crate) fn print(
        self,
        global: &Global,
        json: Value,
        text: impl Display,
    ) -> Result<(), CliError> {
        if global.json { self.print_json(json) } else { print_result(text) }
    }

    /// Prints a result as JSON, with the accessed stores as additional members.
    pub(crate) fn print_json(mut self, result: Value) -> Result<(), CliError> {
        if let Value::Object(members) = result {
            self.members.extend(members);
        }
        print_result(Value::Object(self.members))
    }
}

/// Prints an announcement, except with `--json`: the JSON result contains the stores.
fn print_announcement(line: String, global: &Global) {
    if !global.json && !global.quiet {
        print_notice(line);
    }
}
