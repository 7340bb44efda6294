//! Actor and reason of an operator's request.

use axum::http::StatusCode;
use service_kit::problem::{Fault, Problem};

/// Actor of a request that names none.
const DEFAULT_ACTOR: &str = "operator";
/// Maximum length of an actor, in characters.
const MAX_ACTOR_CHARS: usize = 128;
/// Maximum length of a reason, in characters.
const MAX_REASON_CHARS: usize = 1_000;

/// Returns the actor that a request names, or the default. It is not authenticated.
pub(crate) fn check_actor(given: Option<&str>) -> Result<&str, Problem> {
    match given.map(str::trim) {
        None | Some("") => Ok(DEFAULT_ACTOR),
        Some(actor) => check_text("actor", actor, MAX_ACTOR_CHARS),
    }
}

/// Returns the reason that a request gives; `None` if it gives none.
pub(crate) fn check_reason(given: Option<&str>) -> Result<Option<&str>, Problem> {
    match given.map(str::trim) {
        None | Some("") => Ok(None),
        Some(reason) => check_text("reason", reason, MAX_REASON_CHARS).map(Some),
    }
}

fn check_text<'a>(member: &str, text: &'a str, max_chars: usize) -> Result<&'a str, Problem> {
    if text.chars().count() > max_chars {
        return Err(refuse_member(member, &format!("must be at most {max_chars} characters")));
    }
    // A line break in an actor's name could forge a line in logs and reports.
    if text.chars().any(char::is_control) {
        return Err(refuse_member(member, "must not contain control characters"));
    }
    Ok(text)
}

/// Returns the error for a member of the body that breaks a rule. `member` is its path.
pub(crate) fn refuse_member(member: &str, rule: &str) -> Problem {
    let name = member.rsplit('/').next().unwrap_or(member);
    Problem::application(StatusCode::BAD_REQUEST, format!("{name} {rule}"))
        .with_faults(vec![Fault::new(format!("/{member}"), rule)])
}
