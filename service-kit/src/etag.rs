//! Entity tags: the tag of an order is the revision of its last event.

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue, IF_MATCH};

use crate::problem::Problem;

/// Returns the entity tag of a revision.
pub fn of_revision(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Entity tags of an `If-Match` or `If-None-Match` header.
#[derive(Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`
    Any,
    /// Tags that are revisions. Other tags match no order.
    Revisions(Vec<u64>),
}

impl Tags {
    /// Reads the tags of a header; `None` without the header. Weak tags in `If-Match` match no order, because
    /// `If-Match` compares strongly (RFC 9110, 13.1.1).
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
            let tags = parse_list(text).ok_or_else(refused)?;
            let matching = tags.iter().filter(|tag| !tag.is_weak || name != IF_MATCH);
            revisions.extend(matching.filter_map(Tag::revision));
        }
        Ok(is_given.then_some(Self::Revisions(revisions)))
    }

    /// Returns whether the tags include a revision.
    pub fn contain(&self, revision: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Revisions(revisions) => revisions.contains(&revision),
        }
    }

    /// Returns the newest revision.
    pub fn newest(&self) -> Option<u64> {
        match self {
            Self::Any => None,
            Self::Revisions(revisions) => revisions.iter().copied().max(),
        }
    }
}

/// A tag in a header.
struct Tag<'a> {
    is_weak: bool,
    inner: &'a str,
}

impl Tag<'_> {
    /// Returns the revision, if the tag is written as by [`of_revision`]: another spelling is another tag.
    fn revision(&self) -> Option<u64> {
        self.inner.parse().ok().filter(|revision: &u64| revision.to_string() == self.inner)
    }
}

/// Reads a list of at least one tag. A tag may contain a comma, and a list may have empty elements.
fn parse_list(text: &str) -> Option<Vec<Tag<'_>>> {
    const SEPARATORS: [char; 3] = [' ', '\t', ','];
    let mut tags = Vec::new();
    let mut rest = text.trim_start_matches(SEPARATORS);
    while !rest.is_empty() {
        let strong = rest.strip_prefix("W/");
        let (inner, behind) = strong.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        tags.push(Tag { is_weak: strong.is_some(), inner });
        rest = behind.trim_start_matches(SEPARATORS);
        // Another tag follows without a comma.
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
    fn tags_are_read_as_revisions() {
        assert_eq!(of(&[]).unwrap(), None);
        let tags = of(&["\"3\", W/\"4\"", "\"x\""]).unwrap();
        assert_eq!(tags, Some(Tags::Revisions(vec![3, 4])));
        assert_eq!(of(&["*"]).unwrap(), Some(Tags::Any));
        let spelled = of(&["\"04\", \"+4\",, \"a,b\" ,\"5\","]).unwrap();
        assert_eq!(spelled, Some(Tags::Revisions(vec![5])));
        assert_eq!(of_revision(3), "\"3\"");
    }

    #[test]
    fn weak_tag_of_if_match_matches_no_order() {
        let headers = HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static("W/\"4\""))]);
        assert_eq!(Tags::of(&headers, &IF_MATCH).unwrap(), Some(Tags::Revisions(Vec::new())));
    }

    #[test]
    fn invalid_tags_are_refused() {
        for wrong in ["3", "\"3", "", ",", "\"3\" \"4\"", "*, \"3\"", "w/\"3\""] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }
}
