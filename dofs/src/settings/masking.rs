//! Masking of secrets in settings, by the form of the value: new settings are covered too.

use serde_json::Value;
use service_kit::config::EffectiveValue;

/// Replaces a secret.
const MASK: &str = "***";
/// Parts of the names of settings whose whole value is a secret.
const SECRET_NAMES: [&str; 4] = ["password", "secret", "token", "api_key"];

/// Returns a setting without secrets.
pub(crate) fn mask_setting(setting: EffectiveValue) -> EffectiveValue {
    EffectiveValue { value: mask_secrets(&setting.key, setting.value), ..setting }
}

/// Returns the value of setting `key` without secrets: passwords and users of URLs, and their
/// parameters, which may contain keys.
fn mask_secrets(key: &str, value: Value) -> Value {
    match value {
        Value::String(text) if SECRET_NAMES.iter().any(|name| key.contains(name)) => {
            if text.is_empty() { text.into() } else { MASK.into() }
        }
        Value::String(text) => mask_url(text).into(),
        Value::Array(values) => values.into_iter().map(|value| mask_secrets(key, value)).collect(),
        value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => value,
    }
}

fn mask_url(text: String) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    if scheme == "sqlite" {
        return text;
    }
    // The last `@` ends the credentials: a password may contain others.
    let (credentials, place) = match rest.rsplit_once('@') {
        // If the `@` is part of a parameter, the text after it may be the end of a secret.
        Some((before, _)) if before.contains(['?', '#']) => return format!("{scheme}://{MASK}"),
        Some((_, place)) => (format!("{MASK}@"), place),
        None => (String::new(), rest),
    };
    // The parameters of an event store contain no secret, and show whether it uses TLS.
    let is_event_store = matches!(scheme, "esdb" | "esdb+discover");
    let place = match place.find(['?', '#']) {
        Some(end) if !is_event_store => format!("{}?{MASK}", &place[..end]),
        Some(_) | None => place.to_owned(),
    };
    format!("{scheme}://{credentials}{place}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_and_parameters_of_urls_are_masked() {
        for (url, masked) in [
            ("esdb://admin:p@ss@store:2113?tls=false", "esdb://***@store:2113?tls=false"),
            ("esdb://store:2113?tls=false", "esdb://store:2113?tls=false"),
            ("postgres://dofs:s3cret@db/dofs?sslmode=require", "postgres://***@db/dofs?***"),
            ("postgres://db/dofs?password=s3@cret", "postgres://***"),
            ("https://warehouse/v1?key=s3cret", "https://warehouse/v1?***"),
            ("https://warehouse/v1#s3cret", "https://warehouse/v1?***"),
            ("https://user:12/34@warehouse", "https://***@warehouse"),
            ("sqlite:///data/me@home/rows.sqlite", "sqlite:///data/me@home/rows.sqlite"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("", ""),
        ] {
            assert_eq!(mask_secrets("url", url.into()), masked);
        }
        let list = json!(["https://a:b@c", 1, true]);
        assert_eq!(mask_secrets("origins", list), json!(["https://***@c", 1, true]));
    }

    #[test]
    fn whole_value_of_a_secret_setting_is_masked() {
        assert_eq!(mask_secrets("gateway_token", "s3cret".into()), MASK);
        assert_eq!(mask_secrets("password", "".into()), "");
        // The name of a file with a key is no secret.
        assert_eq!(mask_secrets("tls_key", "key.pem".into()), "key.pem");
    }
}
