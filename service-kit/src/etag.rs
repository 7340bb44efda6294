//! Entity tags: an order's is the revision of its last event.

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue, IF_MATCH};

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
    /// The tags in a header; `None` if the request has none. For `If-Match` a weak one is of no
    /// order: that compares strongly (RFC 9110, 13.1.1).
    pub fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let mut revisions = Vec::new();
        let mut is_given = false;
        for value in headers.get_all(name) {
            is_given = true;
            let refused =
                || Problem::invalid_parameter(name.as_str(), "must be a list of entity tags or *");
            let text = value.to_str().map_err(|_| refused())?;
            if text.trim() == "*" {
                return Ok(Some(Self::Any));
            }
            let tags = listed(text).ok_or_else(refused)?;
            let counting = tags.iter().filter(|it| !it.is_weak || name != IF_MATCH);
            revisions.extend(counting.filter_map(Tag::revision));
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

/// A tag as a client names it.
struct Tag<'a> {
    is_weak: bool,
    inner: &'a str,
}

impl Tag<'_> {
    /// The revision, if it is spelled as we spell it: another spelling is another tag.
    fn revision(&self) -> Option<u64> {
        self.inner.parse().ok().filter(|it: &u64| it.to_string() == self.inner)
    }
}

/// The tags of a list, of which there is at least one. A tag may have a comma in it, and a list
/// empty elements.
fn listed(text: &str) -> Option<Vec<Tag<'_>>> {
    const BETWEEN: [char; 3] = [' ', '\t', ','];
    let mut tags = Vec::new();
    let mut rest = text.trim_start_matches(BETWEEN);
    while !rest.is_empty() {
        let strong = rest.strip_prefix("W/");
        let (inner, behind) = strong.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        tags.push(Tag { is_weak: strong.is_some(), inner });
        rest = behind.trim_start_matches(BETWEEN);
        if !rest.is_empty() && !behind.trim_start().starts_with(',') {
            return None;
        }
    }
    (!tags.is_empty()).then_some(tags)
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
        let spelled = of(&["\"04\", \"+4\",, \"a,b\" ,\"5\","]).unwrap();
        assert_eq!(spelled, Some(Tags::Revisions(vec![5])));
        assert_eq!(of_revision(3), "\"3\"");
    }

    #[test]
    fn weak_tag_matches_no_order_that_is_to_be_changed() {
        let headers = HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static("W/\"4\""))]);
        assert_eq!(Tags::of(&headers, &IF_MATCH).unwrap(), Some(Tags::Revisions(Vec::new())));
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for wrong in ["3", "\"3", "", ",", "\"3\" \"4\"", "*, \"3\"", "w/\"3\""] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }
}
