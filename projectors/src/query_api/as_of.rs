//! An order as it was at a point of its history.

use axum::http::StatusCode;
use domain::ids::OrderId;
use domain::order::Order;
use event_log::LoggedEvent;
use jiff::Timestamp;
use serde::Deserialize;
use service_kit::problem::{Code, Problem};
use service_kit::time::ClampedTimestamp;

use super::histories::Histories;

/// A point of an order's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// Behind the first event that the store has.
    First,
    /// Behind the event of this number.
    Revision(u64),
    /// Behind the last event before the first one that was recorded later than this.
    Time(Timestamp),
    /// Behind the newest event.
    Newest,
}

/// The point in a query, if it names one.
#[derive(Debug, Deserialize)]
pub(super) struct AsOf {
    at_revision: Option<u64>,
    at: Option<ClampedTimestamp>,
}

impl AsOf {
    pub(super) fn point(&self) -> Result<Option<Point>, Problem> {
        match (self.at_revision, self.at) {
            (None, None) => Ok(None),
            (Some(revision), None) => Ok(Some(Point::Revision(revision))),
            (None, Some(ClampedTimestamp(time))) => Ok(Some(Point::Time(time))),
            (Some(_), Some(_)) => {
                Err(Problem::invalid_parameter("at", "must not be given together with at_revision"))
            }
        }
    }
}

impl Point {
    /// A revision, or a time.
    pub(super) fn from_text(name: &str, text: &str) -> Result<Self, Problem> {
        let time = || text.parse().map(|ClampedTimestamp(time)| Self::Time(time));
        text.parse().map(Self::Revision).or_else(|_| time()).map_err(|_| {
            Problem::invalid_parameter(name, "must be a revision or a time (RFC 3339)")
        })
    }

    fn includes(self, event: &LoggedEvent, is_first: bool) -> bool {
        match self {
            Self::First => is_first,
            Self::Revision(revision) => event.revision <= revision,
            Self::Time(time) => event.recorded_at() <= time,
            Self::Newest => true,
        }
    }

    /// What a client is told of a point that the history does not reach, or that lies before the
    /// first event that the store still has.
    fn refuse(self, order_id: OrderId, is_truncated: bool) -> Problem {
        if is_truncated {
            let text = format!("Order {order_id} is no longer known as of then");
            return Problem::application(StatusCode::GONE, text).with_code(Code::OrderDeleted);
        }
        let text = match self {
            Self::Revision(revision) => format!("Order {order_id} has no revision {revision}"),
            Self::Time(time) => format!("Order {order_id} was not placed by {time}"),
            Self::First | Self::Newest => return Problem::order_not_found(order_id),
        };
        Problem::application(StatusCode::NOT_FOUND, text)
    }
}

/// The order as it was: like a row, without the events that cannot be read.
pub(super) async fn order_at(
    histories: &Histories,
    order_id: OrderId,
    point: Point,
) -> Result<Order, Problem> {
    let _admitted = histories.admit().await?;
    let mut fold = match point {
        Point::Revision(revision) => histories.begin(order_id, revision).await?,
        Point::Newest => {
            let newest = histories.newest_revision(order_id).await?;
            histories.begin(order_id, newest).await?
        }
        Point::First | Point::Time(_) => histories.begin_first(order_id),
    };
    loop {
        let is_first = fold.last().is_none();
        let Some(event) = fold.peek().await? else { break };
        if !point.includes(event, is_first) {
            if is_first {
                return Err(point.refuse(order_id, event.revision > 0));
            }
            break;
        }
        fold.apply().await?;
    }
    let Some(last) = fold.last() else { return Err(fold.refuse().await) };
    if matches!(point, Point::Revision(revision) if last < revision) {
        return Err(point.refuse(order_id, false));
    }
    fold.into_state().await
}
