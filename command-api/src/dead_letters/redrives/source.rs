//! Where a redrive of many finds its orders: named one by one, or by what the read model knows.

use std::collections::VecDeque;

use domain::ids::OrderId;
use domain::operations::RedriveFilter;
use service_kit::lifecycle::RoleError;
use service_kit::problem::{Code, Problem};

use crate::dead_letters::failures::{Failure, Failures};

/// How many are read at once.
const PAGE: u32 = 500;

/// The orders that a filter means, one after another.
pub(super) struct Source<'a> {
    failures: &'a dyn Failures,
    filter: &'a RedriveFilter,
    ready: VecDeque<OrderId>,
    last: Option<Failure>,
    is_exhausted: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(failures: &'a dyn Failures, filter: &'a RedriveFilter) -> Self {
        let named = filter.order_ids.clone();
        let is_exhausted = named.is_some();
        let ready = named.unwrap_or_default().into();
        Self { failures, filter, ready, last: None, is_exhausted }
    }

    /// The next, or `None` after the last. What was not returned because nobody waited for it any
    /// more is returned next.
    pub(super) async fn next(&mut self) -> Result<Option<OrderId>, RoleError> {
        if self.ready.is_empty() && !self.is_exhausted {
            let page = self.failures.page(self.filter, self.last, PAGE).await?;
            self.is_exhausted = page.is_empty();
            self.last = page.last().copied().or(self.last);
            self.ready.extend(page.into_iter().map(|it| it.order_id));
        }
        Ok(self.ready.pop_front())
    }
}

/// How many orders a filter means.
pub(super) async fn count(failures: &dyn Failures, filter: &RedriveFilter) -> Result<u64, Problem> {
    match &filter.order_ids {
        Some(named) => Ok(u64::try_from(named.len()).unwrap_or(u64::MAX)),
        None => failures.count(filter).await.map_err(read_model_failed),
    }
}

/// What a client is told if the read model cannot say.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn read_model_failed(error: RoleError) -> Problem {
    let error = &*error as &dyn std::error::Error;
    tracing::warn!(error, "Read model unavailable");
    Problem::unavailable("Read model unavailable").with_code(Code::ReadModelUnavailable)
}
