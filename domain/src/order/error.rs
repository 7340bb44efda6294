//! The rules that `decide` enforces: one variant each.

use super::event::Stage;
use super::state::Status;

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no order of that id.
    #[error("the order does not exist")]
    NotPlaced,
    /// An order of that id is on record.
    #[error("the order was already placed")]
    AlreadyPlaced,
    /// The command speaks of another attempt than the one the order is at.
    #[error("attempt {asked} is not the order's current attempt {current}")]
    OtherAttempt { asked: u32, current: u32 },
    /// The attempt ended otherwise than the command says.
    #[error("attempt {attempt} already ended: the order is {status}")]
    AttemptEnded { attempt: u32, status: Status },
    /// Only a failed order can be redriven.
    #[error("the order is {0}: only a failed order can be redriven")]
    NotFailed(Status),
    /// What broke a business rule would break it again.
    #[error("the order broke a business rule ({code}): place a corrected order instead")]
    FailedValidation { code: String },
    /// The order as corrected breaks a business rule.
    #[error("the corrected order breaks a business rule ({code}): {reason}")]
    CorrectionRefused { code: String, reason: String },
    /// Only a dead letter can be discarded.
    #[error("the order is no dead letter: it is {status}{}", at(*.stage))]
    NotDeadLetter { status: Status, stage: Option<Stage> },
}

fn at(stage: Option<Stage>) -> String {
    stage.map_or_else(String::new, |it| format!(" at stage {}", it.as_str()))
}
