//! Findings: the results of checks.

use std::fmt::Display;

use serde::Serialize;

/// Result of a check, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Ok,
    /// The system works, or the check could not be made.
    Warn,
    /// A role cannot do its work.
    Fail,
}

impl Status {
    /// Returns the name in the output.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(super) status: Status,
    /// Name of the check, e.g. `event_store.tls`.
    pub(super) check: &'static str,
    /// What was found.
    pub(super) detail: String,
    /// What to do; `None` if there is nothing to do.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, detail: impl Display) -> Self {
        Self { status: Status::Ok, check, detail: detail.to_string(), advice: None }
    }

    pub(super) fn warn(
        check: &'static str,
        detail: impl Display,
        advice: impl Into<String>,
    ) -> Self {
        let (detail, advice) = (detail.to_string(), Some(advice.into()));
        Self { status: Status::Warn, check, detail, advice }
    }

    pub(super) fn fail(
        check: &'static str,
        detail: impl Display,
        advice: impl Into<String>,
    ) -> Self {
        Self { status: Status::Fail, ..Self::warn(check, detail, advice) }
    }

    /// Makes the finding of a check that could not be made.
    pub(super) fn not_checked(check: &'static str, reason: impl Display) -> Self {
        let detail = format!("not checked: {reason}");
        Self { status: Status::Warn, ..Self::ok(check, detail) }
    }
}
