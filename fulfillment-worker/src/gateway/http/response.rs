//! Meaning of an HTTP response of the gateway. Pure: the time is an argument.

use std::time::Duration;

use domain::order::FailureClass;
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::Value;

use crate::gateway::{GatewayError, Outcome};

/// Code of a refusal without one.
const REFUSED: &str = "refused";
/// Reason of a refusal without one.
const NO_REASON: &str = "refused by the gateway without a reason";
/// Maximum length of a stored reference or code, in characters.
const MAX_NAME_CHARS: usize = 256;
/// Maximum length of a stored reason, in characters.
const MAX_REASON_CHARS: usize = 1_000;
/// Maximum length of a body's excerpt in an error, in characters.
const MAX_EXCERPT_CHARS: usize = 200;
/// Longest wait that a gateway may ask for. A client may wait for less than it is asked for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// A response of the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct GatewayResponse<'a> {
    pub(super) status: StatusCode,
    /// Value of the header `Retry-After`.
    pub(super) retry_after: Option<&'a str>,
    pub(super) body: &'a [u8],
    /// Why the body is incomplete, if it is.
    pub(super) incomplete: Option<&'a str>,
}

impl GatewayResponse<'_> {
    /// Returns the outcome. Only an explicit response is final: fulfilled with a reference, refused
    /// (422), or an error whose body has `"permanent": true`. Any other error may come from a gateway
    /// that is misconfigured, overloaded or under maintenance: a retry may save the order.
    pub(super) fn to_outcome(self, now: Timestamp) -> Result<Outcome, GatewayError> {
        let status = self.status;
        // An incomplete body may parse, and mean something else than the whole one.
        let body: Value = match self.incomplete {
            None => serde_json::from_slice(self.body).unwrap_or_default(),
            Some(_) => Value::Null,
        };
        if status.is_success() {
            return match text_member(&body, "reference", MAX_NAME_CHARS) {
                Some(reference) => Ok(Outcome::Fulfilled { reference }),
                None => Err(self.to_error(", but without a `reference`")),
            };
        }
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            let text = |member, max_chars, default: &str| {
                text_member(&body, member, max_chars).unwrap_or_else(|| default.to_owned())
            };
            return Ok(Outcome::Refused {
                code: text("code", MAX_NAME_CHARS, REFUSED),
                reason: text("reason", MAX_REASON_CHARS, NO_REASON),
            });
        }
        if body.get("permanent") == Some(&Value::Bool(true)) {
            return Err(GatewayError { class: FailureClass::Permanent, ..self.to_error("") });
        }
        if status.is_redirection() {
            return Err(self.to_error(", a redirect, which is not followed"));
        }
        let may_ask_to_wait =
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
        let header = self.retry_after.filter(|_| may_ask_to_wait);
        let retry_after = header.and_then(|header| parse_retry_after(header, now));
        Err(GatewayError { retry_after, ..self.to_error("") })
    }

    fn to_error(self, remark: &str) -> GatewayError {
        let mut error = format!("gateway answered {}{remark}", self.status);
        if let Some(why) = self.incomplete {
            error = format!("{error} ({why})");
        }
        let excerpt = sanitize(&String::from_utf8_lossy(self.body), MAX_EXCERPT_CHARS);
        let excerpt = Some(excerpt).filter(|text| !text.is_empty());
        GatewayError { class: FailureClass::Transient, error, excerpt, retry_after: None }
    }
}

/// Returns a member of the body that is a string or a number, sanitized; `None` if it is empty.
fn text_member(body: &Value, member: &str, max_chars: usize) -> Option<String> {
    let text = match body.get(member)? {
        Value::String(text) => sanitize(text, max_chars),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// Makes foreign text safe to store and to show on one line: no control characters, single spaces,
/// limited length.
fn sanitize(text: &str, max_chars: usize) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    // Cut between characters: a slice within one would panic.
    match line.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Parses the header `Retry-After`: seconds, or a date.
fn parse_retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let wait = if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow mean a very long wait.
        header.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(header).ok()?;
        let wait = Timestamp::try_from(date).ok()?.duration_since(now);
        // A date in the past gives no wait.
        Duration::try_from(wait).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn response(status: u16, body: &str) -> GatewayResponse<'_> {
        let status = StatusCode::from_u16(status).unwrap();
        GatewayResponse { status, retry_after: None, body: body.as_bytes(), incomplete: None }
    }

    fn outcome_of(status: u16, body: &str) -> Result<Outcome, GatewayError> {
        response(status, body).to_outcome(Timestamp::UNIX_EPOCH)
    }

    fn error_of(status: u16, body: &str) -> String {
        let error = outcome_of(status, body).unwrap_err();
        assert_eq!((error.class, error.retry_after), (FailureClass::Transient, None));
        error.full_text()
    }

    #[test]
    fn success_with_a_reference_is_fulfilled() {
        let bodies = [
            (200, r#"{"reference": "wh-1"}"#, "wh-1"),
            (201, r#"{"reference": " wh\u0000\n1 ", "more": []}"#, "wh 1"),
            (299, r#"{"reference": 18446744073709551615}"#, "18446744073709551615"),
        ];
        for (status, body, reference) in bodies {
            let reference = reference.to_owned();
            assert_eq!(outcome_of(status, body), Ok(Outcome::Fulfilled { reference }));
        }
    }

    #[test]
    fn success_without_a_reference_is_a_transient_failure() {
        let without = [
            "",
            "done",
            "[]",
            r#"{"reference": ""}"#,
            r#"{"reference": "\u0007"}"#,
            r#"{"reference": null}"#,
            r#"{"reference": {"id": 1}}"#,
        ];
        for body in without {
            let error = error_of(200, body);
            assert!(error.contains("answered 200 OK, but without a `reference`"), "{error}");
        }
    }

    #[test]
    fn reference_in_an_incomplete_body_is_ignored() {
        let whole = response(200, r#"{"reference": "wh-1"}"#);
        let cut_off = GatewayResponse { incomplete: Some("the rest did not arrive"), ..whole };
        let error = cut_off.to_outcome(Timestamp::UNIX_EPOCH).unwrap_err().error;
        assert!(error.ends_with("(the rest did not arrive)"), "{error}");
    }

    #[test]
    fn unprocessable_response_is_a_refusal_with_its_reason() {
        let refused = |code: &str, reason: &str| {
            Ok(Outcome::Refused { code: code.to_owned(), reason: reason.to_owned() })
        };
        let body = r#"{"code": "no_stock", "reason": "none left of prod-1"}"#;
        assert_eq!(outcome_of(422, body), refused("no_stock", "none left of prod-1"));
        assert_eq!(outcome_of(422, r#"{"code": 17}"#), refused("17", NO_REASON));
        assert_eq!(outcome_of(422, "no"), refused(REFUSED, NO_REASON));
    }

    #[test]
    fn any_other_status_is_a_transient_failure() {
        for status in [100, 101, 300, 304, 308, 400, 401, 403, 404, 405, 408, 409, 410, 500, 502] {
            let error = error_of(status, r#"{"reference": "wh-1", "error": "not today"}"#);
            assert!(error.starts_with(&format!("gateway answered {status} ")), "{error}");
            assert!(error.contains("not today"), "{error}");
        }
        assert!(
            error_of(302, "").ends_with("answered 302 Found, a redirect, which is not followed")
        );
    }

    #[test]
    fn error_that_is_declared_permanent_is_not_retried() {
        for status in [400, 404, 500] {
            let error = outcome_of(status, r#"{"permanent": true, "error": "unknown product"}"#);
            let error = error.unwrap_err();
            assert_eq!(error.class, FailureClass::Permanent);
            assert!(error.full_text().contains("unknown product"), "{error}");
        }
        for declared in [r#"{"permanent": "true"}"#, r#"{"permanent": false}"#] {
            assert!(error_of(400, declared).contains("gateway answered 400"));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let headers = [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Sun, 01 Mar 2026 12:00:30 GMT", Some(30)),
            ("Sunday, 01-Mar-26 12:00:30 GMT", Some(30)),
            ("Sun, 01 Mar 2026 11:00:00 GMT", Some(0)),
            ("99999999999999999999999999", Some(86_400)),
            ("Sun, 01 Mar 2950 12:00:00 GMT", Some(86_400)),
            ("-1", None),
            ("", None),
            ("soon", None),
        ];
        for (header, seconds) in headers {
            for status in [429, 503] {
                let response =
                    GatewayResponse { retry_after: Some(header), ..response(status, "") };
                let wait = response.to_outcome(now).unwrap_err().retry_after;
                assert_eq!(wait.map(|wait| wait.as_secs()), seconds, "{header}");
            }
        }
    }

    #[test]
    fn foreign_text_is_cut_and_sanitized() {
        let error = error_of(500, &format!("a\r\n\u{1b}b{}", "ö".repeat(100_000)));
        assert!(error.contains(": a böö") && error.ends_with("..."), "{error}");
        assert!(error.chars().count() < 300);
    }

    proptest! {
        /// Every response gives one line of text, and none makes the worker panic.
        #[test]
        fn any_response_gives_one_line_of_text(
            status in 100..1_000_u16,
            body in prop::collection::vec(any::<u8>(), 0..600),
            retry_after in prop::option::of(".{0,40}"),
        ) {
            let status = StatusCode::from_u16(status).unwrap();
            let retry_after = retry_after.as_deref();
            let response = GatewayResponse { status, retry_after, body: &body, incomplete: None };
            let text = match response.to_outcome(Timestamp::UNIX_EPOCH) {
                Ok(Outcome::Fulfilled { reference }) => reference,
                Ok(Outcome::Refused { code, reason }) => format!("{code}{reason}"),
                Err(error) => error.error,
            };
            prop_assert!(!text.is_empty() && !text.contains(char::is_control));
        }
    }
}
