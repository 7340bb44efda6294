//! The stores that a command works on without the API, said before it does: a result about another
//! store than was meant looks like any other.

use event_log::{EventLog, EventStoreUrl};
use projectors::{ReadModel, ReadModelUrl};
use serde_json::{Map, Value, json};

use crate::cli::Global;
use crate::error::CliError;
use crate::output::{print, say};
use crate::settings::Settings;
use crate::system::producer;

/// The stores that a command works on, as its result names them.
#[derive(Default)]
pub(crate) struct Stores {
    named: Map<String, Value>,
}

impl Stores {
    /// Connects to the configured event store under `name`, and says which one that is.
    pub(crate) async fn open_event_log(
        &mut self,
        settings: &Settings,
        name: &str,
        global: &Global,
    ) -> Result<EventLog, CliError> {
        let url = &settings.event_store.url;
        if url.is_empty() {
            return Err(CliError::NoEventStore);
        }
        let log = EventLog::connect(&settings.event_store, producer(), name)?;
        self.say_event_store("event_store", url, &log, global).await?;
        Ok(log)
    }

    /// Says which event store is behind `log`, and has the result call it `role`.
    pub(crate) async fn say_event_store(
        &mut self,
        role: &str,
        url: &EventStoreUrl,
        log: &EventLog,
        global: &Global,
    ) -> Result<(), CliError> {
        let store_id = log.store_id().await;
        let id = match &store_id {
            Ok(Some(id)) => format!(", store {id}"),
            Ok(None) => ", without events".to_owned(),
            Err(_) => String::new(),
        };
        tell(format!("{}: {url}{id}", role.replace('_', " ")), global);
        let named = json!({"address": url.to_string(), "store_id": store_id?});
        self.named.insert(role.to_owned(), named);
        Ok(())
    }

    /// Says which read model `store` is, and which version its schema has.
    pub(crate) async fn say_read_model(
        &mut self,
        url: &ReadModelUrl,
        store: &dyn ReadModel,
        global: &Global,
    ) -> Result<(), CliError> {
        let version = store.schema_version().await;
        let schema = match &version {
            Ok(Some(version)) => format!(", schema version {version}"),
            Ok(None) => ", without tables".to_owned(),
            Err(_) => String::new(),
        };
        tell(format!("read model: {url}{schema}"), global);
        let named = json!({"address": url.to_string(), "schema_version": version?});
        self.named.insert("read_model".to_owned(), named);
        Ok(())
    }

    /// Prints a result as JSON, together with the stores that it is about.
    pub(crate) fn print_json(mut self, result: Value) -> Result<(), CliError> {
        if let Value::Object(members) = result {
            self.named.extend(members);
        }
        print(Value::Object(self.named))
    }
}

/// With `--json`, the result says it.
fn tell(line: String, global: &Global) {
    if !global.json && !global.quiet {
        say(line);
    }
}
