//! States of the past: an order at a point of its history.

use api_types::{ClampedTimestamp, GetOrderQuery};
use axum::http::StatusCode;
use domain::ids::OrderId;
use domain::order::Order;
use event_log::LoggedEvent;
use jiff::Timestamp;
use service_kit::problem::{Code, Problem};

use super::history_reader::HistoryReaders;

/// A point of an order's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// After the first event that the store has.
    First,
    /// After the event with this revision.
    Revision(u64),
    /// After the events that were recorded at or before this time, up to the first later one.
    Time(Timestamp),
    /// After the newest event.
    Newest,
}

/// Returns the point that a query names, if it names one.
pub(super) fn from_query(query: &GetOrderQuery) -> Result<Option<Point>, Problem> {
    match (query.at_revision, query.at) {
        (None, None) => Ok(None),
        (Some(revision), None) => Ok(Some(Point::Revision(revision))),
        (None, Some(ClampedTimestamp(time))) => Ok(Some(Point::Time(time))),
        (Some(_), Some(_)) => {
            Err(Problem::invalid_parameter("at", "must not be given together with at_revision"))
        }
    }
}

impl Point {
    /// Reads a revision or a time.
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

    /// Returns the error for a point after the last event, or before the first event that the store still
    /// has.
    fn to_problem(self, order_id: OrderId, is_truncated: bool) -> Problem {
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

/// Returns the order at a point. Events that cannot be read are left out, as in rows.
pub(super) async fn order_at(
    readers: &HistoryReaders,
    order_id: OrderId,
    point: Point,
) -> Result<Order, Problem> {
    let _admitted = readers.admit().await?;
    let mut reader = match point {
        Point::Revision(revision) => readers.begin(order_id, revision).await?,
        Point::Newest => {
            let newest = readers.newest_revision(order_id).await?;
            readers.begin(order_id, newest).await?
        }
        // A time does not tell a revision: the history is read from its beginning.
        Point::First | Point::Time(_) => readers.begin_first(order_id),
    };
    loop {
        let is_first = reader.last().is_none();
        let Some(event) = reader.peek().await? else { break };
        if !point.includes(event, is_first) {
            if is_first {
                return Err(point.to_problem(order_id, event.revision > 0));
            }
            break;
        }
        reader.skip().await?;
    }
    let Some(last) = reader.last() else { return Err(reader.to_problem().await) };
    if matches!(point, Point::Revision(revision) if last < revision) {
        return Err(point.to_problem(order_id, false));
    }
    reader.into_state().await
}
