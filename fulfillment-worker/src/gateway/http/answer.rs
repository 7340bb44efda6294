//! What an HTTP answer means. Pure: the time is an argument.

use std::time::Duration;

use domain::order::FailureClass;
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::Value;

use crate::gateway::{GatewayError, Outcome};

/// The code of a refusal that has none.
const REFUSED: &str = "refused";
/// The reason of a refusal that has none.
const NO_REASON: &str = "refused by the gateway without a reason";
/// The most that is kept of a reference or a code, in characters.
const MAX_NAME_CHARS: usize = 256;
/// The most that is kept of a reason, in characters.
const MAX_REASON_CHARS: usize = 1_000;
/// The most that an error says of a body, in characters.
const MAX_EXCERPT_CHARS: usize = 200;
/// The longest time for which a gateway is left alone because it says so. A caller may well wait
/// for less.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// An answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<&'a str>,
    pub(super) body: &'a [u8],
    /// Why there is more of the body than this.
    pub(super) incomplete: Option<&'a str>,
}

/// What the gateway said. Only what is sure is final: fulfilled, with a reference to show
/// for it, and refused. All else may be a gateway that is set up wrongly, asked too much or under
/// repair, and that must not cost orders that another try would save.
pub(super) fn outcome(answer: Answer<'_>, now: Timestamp) -> Result<Outcome, GatewayError> {
    let status = answer.status;
    let body = || if answer.incomplete.is_some() { None } else { parsed(answer.body) };
    if status.is_success() {
        return match body().as_ref().and_then(|it| text(it, "reference", MAX_NAME_CHARS)) {
            Some(reference) => Ok(Outcome::Fulfilled { reference }),
            None => Err(failed(answer, ", but without a `reference`", None)),
        };
    }
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        let body = body().unwrap_or_default();
        return Ok(Outcome::Refused {
            code: text(&body, "code", MAX_NAME_CHARS).unwrap_or_else(|| REFUSED.to_owned()),
            reason: text(&body, "reason", MAX_REASON_CHARS).unwrap_or_else(|| NO_REASON.to_owned()),
        });
    }
    let (remark, retry_after) = if status.is_redirection() {
        (", a redirect, and none is followed", None)
    } else if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
        ("", answer.retry_after.and_then(|it| retry_after(it, now)))
    } else {
        ("", None)
    };
    Err(failed(answer, remark, retry_after))
}

fn parsed(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

/// A member of the body that is a string or a number, fit to be kept; none if it is empty.
fn text(body: &Value, member: &str, max_chars: usize) -> Option<String> {
    let text = match body.get(member)? {
        Value::String(text) => tidy(text, max_chars),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(text).filter(|it| !it.is_empty())
}

fn failed(answer: Answer<'_>, remark: &str, retry_after: Option<Duration>) -> GatewayError {
    let mut error = format!("gateway answered {}{remark}", answer.status);
    if let Some(why) = answer.incomplete {
        error = format!("{error} ({why})");
    }
    let excerpt = tidy(&String::from_utf8_lossy(answer.body), MAX_EXCERPT_CHARS);
    let said = Some(excerpt).filter(|it| !it.is_empty());
    GatewayError { class: FailureClass::Transient, error, said, retry_after }
}

/// Text of a stranger as it may be stored and shown on one line: no control characters, single
/// spaces, so long at most.
fn tidy(text: &str, max_chars: usize) -> String {
    let words = text.split(|it: char| it.is_whitespace() || it.is_control());
    let line = words.filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Seconds, or a date.
fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let wait = if !header.is_empty() && header.bytes().all(|it| it.is_ascii_digit()) {
        // So many digits that they are no number: very long.
        header.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(header).ok()?;
        let wait = Timestamp::try_from(date).ok()?.duration_since(now);
        // A date in the past: now.
        Duration::try_from(wait).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer<'_> {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, retry_after: None, body: body.as_bytes(), incomplete: None }
    }

    fn outcome_of(status: u16, body: &str) -> Result<Outcome, GatewayError> {
        outcome(answer(status, body), Timestamp::UNIX_EPOCH)
    }

    fn error_of(status: u16, body: &str) -> String {
        let error = outcome_of(status, body).unwrap_err();
        assert_eq!((error.class, error.retry_after), (FailureClass::Transient, None));
        error.recorded()
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
    fn success_without_a_reference_is_none() {
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
    fn reference_in_a_body_that_is_not_whole_is_not_believed() {
        let whole = answer(200, r#"{"reference": "wh-1"}"#);
        let cut_off = Answer { incomplete: Some("the rest did not arrive"), ..whole };
        let error = outcome(cut_off, Timestamp::UNIX_EPOCH).unwrap_err().error;
        assert!(error.ends_with("(the rest did not arrive)"), "{error}");
    }

    #[test]
    fn unprocessable_is_refused_for_the_reason_that_it_gives() {
        let refused = |code: &str, reason: &str| {
            Ok(Outcome::Refused { code: code.to_owned(), reason: reason.to_owned() })
        };
        let body = r#"{"code": "no_stock", "reason": "none left of prod-1"}"#;
        assert_eq!(outcome_of(422, body), refused("no_stock", "none left of prod-1"));
        assert_eq!(outcome_of(422, r#"{"code": 17}"#), refused("17", NO_REASON));
        assert_eq!(outcome_of(422, "no"), refused(REFUSED, NO_REASON));
    }

    #[test]
    fn anything_else_may_work_later() {
        for status in [100, 101, 300, 304, 308, 400, 401, 403, 404, 405, 408, 409, 410, 500, 502] {
            let error = error_of(status, r#"{"reference": "wh-1", "error": "not today"}"#);
            assert!(error.starts_with(&format!("gateway answered {status} ")), "{error}");
            assert!(error.contains("not today"), "{error}");
        }
        assert!(
            error_of(302, "").ends_with("answered 302 Found, a redirect, and none is followed")
        );
    }

    #[test]
    fn time_to_be_left_alone_is_seconds_or_a_date() {
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
                let answer = Answer { retry_after: Some(header), ..answer(status, "") };
                let waits = outcome(answer, now).unwrap_err().retry_after;
                assert_eq!(waits.map(|it| it.as_secs()), seconds, "{header}");
            }
        }
    }

    #[test]
    fn text_of_a_stranger_is_cut_and_tidied() {
        let error = error_of(500, &format!("a\r\n\u{1b}b{}", "ö".repeat(100_000)));
        assert!(error.contains(": a böö") && error.ends_with("..."), "{error}");
        assert!(error.chars().count() < 300);
    }

    proptest! {
        /// No answer is more than a line of text, and none makes the worker panic.
        #[test]
        fn any_answer_means_something(
            status in 100..1_000_u16,
            body in prop::collection::vec(any::<u8>(), 0..600),
            retry_after in prop::option::of(".{0,40}"),
        ) {
            let status = StatusCode::from_u16(status).unwrap();
            let retry_after = retry_after.as_deref();
            let answer = Answer { status, retry_after, body: &body, incomplete: None };
            let said = match outcome(answer, Timestamp::UNIX_EPOCH) {
                Ok(Outcome::Fulfilled { reference }) => reference,
                Ok(Outcome::Refused { code, reason }) => format!("{code}{reason}"),
                Err(error) => error.error,
            };
            prop_assert!(!said.is_empty() && !said.contains(char::is_control));
        }
    }
}
