//! An order as it was at a point of its history.

use axum::http::StatusCode;
use domain::ids::OrderId;
use domain::order::{Order, evolve};
use event_log::LoggedEvent;
use jiff::Timestamp;
use serde::Deserialize;
use service_kit::problem::Problem;

use super::{Queries, log_failed};

/// A point of an order's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// Behind the event of this number.
    Revision(u64),
    /// Behind the last event before the first one that was recorded later than this.
    Time(Timestamp),
}

/// The point in a query, if it names one.
#[derive(Debug, Deserialize)]
pub(super) struct AsOf {
    at_revision: Option<u64>,
    at: Option<Timestamp>,
}

impl AsOf {
    pub(super) fn point(&self) -> Result<Option<Point>, Problem> {
        match (self.at_revision, self.at) {
            (None, None) => Ok(None),
            (Some(revision), None) => Ok(Some(Point::Revision(revision))),
            (None, Some(time)) => Ok(Some(Point::Time(time))),
            (Some(_), Some(_)) => Err(Problem::invalid_parameters()),
        }
    }
}

impl Point {
    /// A revision, or a time.
    pub(super) fn from_text(text: &str) -> Result<Self, Problem> {
        text.parse()
            .map(Self::Revision)
            .or_else(|_| text.parse().map(Self::Time))
            .map_err(|_| Problem::invalid_parameters())
    }

    /// The part of a history up to the point.
    pub(super) fn beginning(
        self,
        order_id: OrderId,
        history: &[LoggedEvent],
    ) -> Result<&[LoggedEvent], Problem> {
        let (n_events, is_there) = match self {
            Self::Revision(revision) => (
                history.partition_point(|it| it.revision <= revision),
                history.last().is_some_and(|it| revision <= it.revision),
            ),
            Self::Time(time) => {
                let later = history.iter().position(|it| it.recorded_at() > time);
                (later.unwrap_or(history.len()), later != Some(0))
            }
        };
        history.get(..n_events).filter(|_| is_there).ok_or_else(|| self.not_reached(order_id))
    }

    fn not_reached(self, order_id: OrderId) -> Problem {
        let text = match self {
            Self::Revision(revision) => format!("Order {order_id} has no revision {revision}"),
            Self::Time(time) => format!("Order {order_id} was not placed by {time}"),
        };
        Problem::application(StatusCode::NOT_FOUND, text)
    }
}

/// An order's events, as long as there is such an order.
pub(super) async fn history(
    queries: &Queries,
    order_id: OrderId,
) -> Result<Vec<LoggedEvent>, Problem> {
    let history = queries.log.history(order_id).await.map_err(log_failed)?;
    if history.is_empty() { Err(Problem::order_not_found(order_id)) } else { Ok(history) }
}

/// What the beginning of a history amounts to: like a row, without the events that cannot be read.
pub(super) fn folded(order_id: OrderId, history: &[LoggedEvent]) -> Result<Order, Problem> {
    let mut order = None;
    let mut unreadable = None;
    for event in history {
        match event.decode() {
            Ok(recorded) => order = Some(evolve(order, &recorded)),
            Err(error) => unreadable = Some(error),
        }
    }
    match (order, unreadable) {
        (Some(order), _) => Ok(order),
        (None, Some(error)) => Err(log_failed(error)),
        (None, None) => Err(Problem::order_not_found(order_id)),
    }
}
