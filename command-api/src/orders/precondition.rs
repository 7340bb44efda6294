//! `If-Match`: change an order only as the client last saw it.

use axum::http::StatusCode;
use axum::http::header::{HeaderMap, IF_MATCH};
use domain::ids::OrderId;
use domain::order::Order;
use service_kit::problem::Problem;

/// Which revisions of an order the client accepts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Whatever it is.
    None,
    /// One of these.
    Revisions(Vec<u64>),
}

impl Precondition {
    /// As the headers say. A tag that is none of ours matches nothing (RFC 9110, section 13.1.1).
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut revisions = Vec::new();
        let mut is_given = false;
        for value in headers.get_all(IF_MATCH) {
            let text = value.to_str().map_err(|_| Problem::invalid_parameters())?;
            for tag in text.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Self::None);
                }
                is_given = true;
                let tag = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = tag.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
                revisions.extend(inner.ok_or_else(Problem::invalid_parameters)?.parse::<u64>());
            }
        }
        Ok(if is_given { Self::Revisions(revisions) } else { Self::None })
    }

    /// Whether an order is as the client wants it.
    pub(crate) fn check(&self, order: &Order) -> Result<(), Problem> {
        match self {
            Self::Revisions(revisions) if !revisions.contains(&order.revision) => {
                Err(failed(order.order_id))
            }
            Self::None | Self::Revisions(_) => Ok(()),
        }
    }
}

/// The order is not as the client wants it.
pub(crate) fn failed(order_id: OrderId) -> Problem {
    let error = format!("Order {order_id} has changed: read it again");
    Problem::application(StatusCode::PRECONDITION_FAILED, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<Precondition> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MATCH, value.parse().unwrap());
        }
        Precondition::from_headers(&headers).ok()
    }

    #[test]
    fn tags_are_revisions() {
        assert_eq!(of(&[]), Some(Precondition::None));
        assert_eq!(of(&["*"]), Some(Precondition::None));
        assert_eq!(of(&["\"3\", W/\"4\"", "\"5\""]), Some(Precondition::Revisions(vec![3, 4, 5])));
        assert_eq!(of(&["\"abc\""]), Some(Precondition::Revisions(vec![])));
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for wrong in ["3", "\"3", ""] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
    }
}
