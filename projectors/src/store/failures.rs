//! Failures that nobody has resolved: which of them, and how many of a kind.

use domain::order::Stage;
use jiff::Timestamp;

use super::StoreError;
use super::record::Time;

/// Unresolved failures of one stage and code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureGroup {
    pub stage: Stage,
    pub code: String,
    pub n_orders: u64,
    pub oldest_failed_at: Timestamp,
    pub newest_failed_at: Timestamp,
}

/// A group as a database answers it.
pub(super) struct GroupRecord<T> {
    pub(super) stage: String,
    pub(super) code: String,
    pub(super) n_orders: i64,
    pub(super) oldest_failed_at: T,
    pub(super) newest_failed_at: T,
}

impl<T: Time> GroupRecord<T> {
    pub(super) fn group(self) -> Result<FailureGroup, StoreError> {
        let unreadable = |what: &str| StoreError::Row {
            of: format!("failed_orders with code `{}`", self.code),
            reason: what.to_owned(),
        };
        let time = |it: T| it.timestamp().ok_or_else(|| unreadable("time out of range"));
        Ok(FailureGroup {
            stage: Stage::from_name(&self.stage)
                .ok_or_else(|| unreadable(&format!("unknown stage `{}`", self.stage)))?,
            oldest_failed_at: time(self.oldest_failed_at)?,
            newest_failed_at: time(self.newest_failed_at)?,
            n_orders: self.n_orders.cast_unsigned(),
            code: self.code,
        })
    }
}
