//! The rules that `decide` enforces: one variant each.

use super::event::Stage;
use super::state::Status;

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no order with this id.
    #[error("the order does not exist")]
    NotPlaced,
    /// An order with this id exists.
    #[error("the order was already placed")]
    AlreadyPlaced,
    /// The command is about another attempt than the current one.
    #[error("attempt {asked} is not the order's current attempt {current}")]
    OtherAttempt { asked: u32, current: u32 },
    /// The attempt has ended with another outcome than the command records.
    #[error("attempt {attempt} already ended: the order is {status}")]
    AttemptEnded { attempt: u32, status: Status },
    /// Only a failed order can be redriven.
    #[error("the order is {0}: only a failed order can be redriven")]
    NotFailed(Status),
    /// The order broke a business rule, and would break it again.
    #[error("the order broke a business rule ({code}): place a corrected order instead")]
    FailedValidation { code: String },
    /// The corrected order breaks a business rule.
    #[error("the corrected order breaks a business rule ({code}): {reason}")]
    CorrectionRefused { code: String, reason: String },
    /// Only a dead letter can be discarded.
    #[error("the order is not a dead letter: it is {status}{}", describe_stage(*.stage))]
    NotDeadLetter { status: Status, stage: Option<Stage> },
}

fn describe_stage(stage: Option<Stage>) -> String {
    stage.map_or_else(String::new, |stage| format!(" at stage {}", stage.as_str()))
}
