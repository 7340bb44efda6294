//! Entity tags: an order's is the revision of its last event.

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue};

use crate::problem::Problem;

/// The entity tag of a revision.
pub fn of_revision(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The tags that an `If-Match` or `If-None-Match` names.
#[derive(Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`
    Any,
    /// Those that are revisions. Another tag is of no order.
    Revisions(Vec<u64>),
}

impl Tags {
    /// The tags in a header; `None` if the request has none.
    pub fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let mut revisions = Vec::new();
        let mut is_given = false;
        for value in headers.get_all(name) {
            is_given = true;
            let text = value.to_str().map_err(|_| Problem::invalid_parameters())?;
            for tag in text.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Some(Self::Any));
                }
                let tag = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = tag.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
                revisions.extend(inner.ok_or_else(Problem::invalid_parameters)?.parse::<u64>());
            }
        }
        Ok(is_given.then_some(Self::Revisions(revisions)))
    }

    /// Whether the revision is among them.
    pub fn contain(&self, revision: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Revisions(revisions) => revisions.contains(&revision),
        }
    }

    /// The newest revision among them.
    pub fn newest(&self) -> Option<u64> {
        match self {
            Self::Any => None,
            Self::Revisions(revisions) => revisions.iter().copied().max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::IF_NONE_MATCH;

    use super::*;

    fn of(values: &[&'static str]) -> Result<Option<Tags>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_NONE_MATCH, HeaderValue::from_static(value));
        }
        Tags::of(&headers, &IF_NONE_MATCH)
    }

    #[test]
    fn tags_are_revisions() {
        assert_eq!(of(&[]).unwrap(), None);
        let tags = of(&["\"3\", W/\"4\"", "\"x\""]).unwrap();
        assert_eq!(tags, Some(Tags::Revisions(vec![3, 4])));
        assert_eq!(of(&["*"]).unwrap(), Some(Tags::Any));
        assert_eq!(of_revision(3), "\"3\"");
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for wrong in ["3", "\"3", ""] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }
}
