//! What operators say with what they do: who they are, and why.

use axum::http::StatusCode;
use serde::Deserialize;
use service_kit::problem::{Fault, Problem};
use utoipa::ToSchema;

/// Who acts, if nobody says.
const ACTOR: &str = "operator";
/// The longest name of an actor, in characters.
const MAX_ACTOR_CHARS: usize = 128;
/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 1_000;

/// The members of a request body that every act of an operator has.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OperatorSaid)]
pub(crate) struct Said {
    /// Who acts, where nobody has to show a key.
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    actor: Option<String>,
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    reason: Option<String>,
}

impl Said {
    /// What stands in a body that has other members too.
    pub(crate) fn new(actor: Option<String>, reason: Option<String>) -> Self {
        Self { actor, reason }
    }

    /// Who acts, by what is said: nobody has checked it.
    pub(crate) fn actor(&self) -> Result<&str, Problem> {
        match self.actor.as_deref().map(str::trim) {
            None | Some("") => Ok(ACTOR),
            Some(actor) => bounded("actor", actor, MAX_ACTOR_CHARS),
        }
    }

    /// Why, if that was said.
    pub(crate) fn reason(&self) -> Result<Option<&str>, Problem> {
        match self.reason.as_deref().map(str::trim) {
            None | Some("") => Ok(None),
            Some(reason) => bounded("reason", reason, MAX_REASON_CHARS).map(Some),
        }
    }

    /// Why; for what must not be done without a reason.
    pub(crate) fn required_reason(&self) -> Result<&str, Problem> {
        self.reason()?.ok_or_else(|| refused("reason", "must be given"))
    }
}

fn bounded<'a>(name: &str, text: &'a str, max_chars: usize) -> Result<&'a str, Problem> {
    if text.chars().count() > max_chars {
        return Err(refused(name, &format!("must be at most {max_chars} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(refused(name, "must not contain control characters"));
    }
    Ok(text)
}

/// The answer to a member of an operator's body that breaks a rule.
pub(crate) fn refused(member: &str, rule: &str) -> Problem {
    let name = member.rsplit('/').next().unwrap_or(member);
    Problem::application(StatusCode::BAD_REQUEST, format!("{name} {rule}"))
        .with_faults(vec![Fault::new(format!("/{member}"), rule)])
}
