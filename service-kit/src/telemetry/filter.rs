//! The log filter, which can be replaced while the process runs.

use std::sync::OnceLock;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload::{self, Handle};

/// The event store's client logs every lost connection and each append of an ended call as an error.
/// `event-log` logs the same once, with its reaction. A filter that names the client overrides this.
const CLIENT_MUTED: &str = "kurrentdb=off";

/// The filter of this process; empty until [`make_reloadable`].
static CURRENT: OnceLock<CurrentFilter> = OnceLock::new();

/// Access to the filter in use. The functions hide the subscriber's type.
struct CurrentFilter {
    show: Box<dyn Fn() -> Option<String> + Send + Sync>,
    replace: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

/// Why the log filter was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    #[error("invalid log filter `{filter}`: expected e.g. `info` or `warn,dofs=debug`")]
    Invalid {
        filter: String,
        #[source]
        source: ParseError,
    },
    #[error("log filter is empty: expected e.g. `info` or `warn,dofs=debug`")]
    Empty,
    #[error("the log filter of this process cannot be replaced")]
    Fixed,
}

/// Returns the filter as a layer that [`set_log_filter`] can change.
pub(super) fn make_reloadable<S: Subscriber>(filter: EnvFilter) -> reload::Layer<EnvFilter, S> {
    let (layer, handle) = reload::Layer::new(filter);
    let shown: Handle<EnvFilter, S> = handle.clone();
    let current = CurrentFilter {
        show: Box::new(move || shown.with_current(ToString::to_string).ok()),
        replace: Box::new(move |filter| handle.reload(filter)),
    };
    // Fails only if a filter is in use already: then this one's subscriber is not installed either.
    drop(CURRENT.set(current));
    layer
}

/// Returns the filter in use; `None` if logging has not started.
pub fn log_filter() -> Option<String> {
    (CURRENT.get()?.show)()
}

/// Replaces the filter until the process ends. `directives` has the syntax of `RUST_LOG`.
pub fn set_log_filter(directives: String) -> Result<(), LogFilterError> {
    if directives.trim().is_empty() {
        return Err(LogFilterError::Empty);
    }
    let filter = match parse_filter(directives.trim()) {
        Ok(filter) => filter,
        Err(source) => return Err(LogFilterError::Invalid { filter: directives, source }),
    };
    let current = CURRENT.get().ok_or(LogFilterError::Fixed)?;
    (current.replace)(filter).map_err(|_| LogFilterError::Fixed)?;
    tracing::warn!(filter = log_filter(), "Log filter replaced");
    Ok(())
}

pub(super) fn parse_filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(mute_client(directives))
}

/// Adds the directive that mutes the event store's client.
pub(super) fn mute_client(directives: &str) -> String {
    // The last of two directives for one target wins, so the caller's come last.
    format!("{CLIENT_MUTED},{directives}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_is_muted_unless_a_filter_names_it() {
        let filter = |directives| parse_filter(directives).unwrap().to_string();
        assert_eq!(filter("warn"), "kurrentdb=off,warn");
        assert_eq!(filter("warn,kurrentdb=debug"), "kurrentdb=debug,warn");
        assert!(parse_filter("dofs=loud").is_err());
    }

    #[test]
    fn replaced_filter_is_shown_and_an_invalid_one_is_refused() {
        let layer = make_reloadable::<tracing_subscriber::Registry>(parse_filter("info").unwrap());
        assert_eq!(log_filter().as_deref(), Some("kurrentdb=off,info"));
        set_log_filter("warn,dofs=debug\n".to_owned()).unwrap();
        assert_eq!(log_filter().as_deref(), Some("kurrentdb=off,dofs=debug,warn"));
        let error = set_log_filter("dofs=loud".to_owned()).unwrap_err();
        assert!(error.to_string().starts_with("invalid log filter `dofs=loud`"));
        assert!(matches!(set_log_filter(String::new()), Err(LogFilterError::Empty)));
        drop(layer);
        assert!(matches!(set_log_filter("info".to_owned()), Err(LogFilterError::Fixed)));
    }
}
