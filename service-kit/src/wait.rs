//! Requests that wait: `Prefer: wait=N` (RFC 7240) and `Wait-For-Revision: n`.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;

use crate::concurrency_limit::ConcurrencyPermit;
use crate::problem::Problem;

/// Maximum wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Default wait of a request for a revision.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(5);

const PREFER: HeaderName = HeaderName::from_static("prefer");
const WAIT_FOR_REVISION: HeaderName = HeaderName::from_static("wait-for-revision");
/// Response header with the applied preference.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Wait of a request.
#[derive(Clone)]
pub struct Wait {
    /// Preferred wait, at most the maximum; `None` without a preference or with `wait=0`.
    pub preferred: Option<Duration>,
    /// Revision of `Wait-For-Revision`.
    pub revision: Option<u64>,
    /// Wait for the revision without a preference.
    otherwise: Duration,
    permit: Option<ConcurrencyPermit>,
}

impl Wait {
    /// Returns the wait for the revision.
    pub fn for_revision(&self) -> Duration {
        self.preferred.unwrap_or(self.otherwise)
    }

    /// Releases the request's share of the concurrency limit. Call it before waiting.
    pub fn begin(&self) {
        if let Some(permit) = &self.permit {
            permit.release();
        }
    }

    /// Returns the header `Preference-Applied` for a response that the preference has changed.
    pub fn applied(&self) -> Option<(HeaderName, HeaderValue)> {
        let seconds = self.preferred?.as_secs();
        Some((PREFERENCE_APPLIED, HeaderValue::from_str(&format!("wait={seconds}")).ok()?))
    }

    fn of(headers: &HeaderMap, permit: Option<ConcurrencyPermit>) -> Result<Self, Problem> {
        let longest = permit.as_ref().map_or(LONGEST_WAIT, |permit| permit.longest_wait);
        let asked = preferred_seconds(headers).map(Duration::from_secs);
        let preferred = asked.map(|wait| wait.min(longest)).filter(|wait| !wait.is_zero());
        let otherwise = if asked.is_some() { Duration::ZERO } else { DEFAULT_WAIT.min(longest) };
        Ok(Self { preferred, revision: revision(headers)?, otherwise, permit })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers, parts.extensions.get::<ConcurrencyPermit>().cloned())
    }
}

/// Returns the first `wait` of all preferences. Invalid preferences are ignored (RFC 7240, section 2).
fn preferred_seconds(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    let wait = preferences.find_map(|preference| {
        let preference = preference.split(';').next()?;
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    })?;
    let is_number = !wait.is_empty() && wait.bytes().all(|byte| byte.is_ascii_digit());
    // A number that does not fit 64 bits is more than the maximum.
    is_number.then(|| wait.parse().unwrap_or(u64::MAX))
}

fn revision(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut values = headers.get_all(WAIT_FOR_REVISION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).map(str::trim);
    // `parse` would also accept `+7`.
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let revision = digits.and_then(|digits| digits.parse().ok());
    revision.map(Some).ok_or_else(|| {
        Problem::invalid_parameter(WAIT_FOR_REVISION.as_str(), "must be one revision")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn preferred(values: &[&'static str]) -> Option<u64> {
        let pairs: Vec<_> = values.iter().map(|value| ("prefer", *value)).collect();
        let wait = Wait::of(&headers(&pairs), None).unwrap_or_else(|problem| panic!("{problem:?}"));
        wait.preferred.map(|wait| wait.as_secs())
    }

    #[test]
    fn wait_is_found_among_other_preferences_and_capped() {
        assert_eq!(preferred(&["wait=7"]), Some(7));
        assert_eq!(preferred(&["respond-async, Wait=\"7\"; strict"]), Some(7));
        assert_eq!(preferred(&["return=minimal", "wait = 7", "wait=9"]), Some(7));
        assert_eq!(preferred(&["wait=31"]), Some(30));
        assert_eq!(preferred(&["wait=99999999999999999999999"]), Some(30));
    }

    #[test]
    fn wait_of_zero_does_not_wait() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let wait = Wait::of(&headers(pairs), None);
            wait.unwrap_or_else(|problem| panic!("{problem:?}")).for_revision()
        };
        assert_eq!(of(&[("wait-for-revision", "4")]), DEFAULT_WAIT);
        assert_eq!(of(&[("wait-for-revision", "4"), ("prefer", "wait=0")]), Duration::ZERO);
    }

    #[test]
    fn invalid_preferences_are_ignored() {
        for none in ["wait", "wait=", "wait=-1", "wait=soon", "wait=0", "await=7", ""] {
            assert_eq!(preferred(&[none]), None, "{none}");
        }
        assert_eq!(preferred(&[]), None);
    }

    #[test]
    fn wait_is_capped_by_the_request_timeout() {
        let permit = |longest_wait| ConcurrencyPermit { permit: Arc::default(), longest_wait };
        let of =
            |longest_wait| Wait::of(&headers(&[("prefer", "wait=9")]), Some(permit(longest_wait)));
        let capped = |longest: u64| of(Duration::from_secs(longest)).ok()?.preferred;
        assert_eq!(capped(4), Some(Duration::from_secs(4)));
        assert_eq!(capped(0), None);
    }

    #[test]
    fn revision_must_be_one_number() {
        let of = |values: &[&'static str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("wait-for-revision", *value)).collect();
            Wait::of(&headers(&pairs), None).map(|wait| wait.revision).ok()
        };
        assert_eq!(of(&[]), Some(None));
        assert_eq!(of(&["4"]), Some(Some(4)));
        for wrong in ["", "-1", "+1", "four", "99999999999999999999999"] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
        assert_eq!(of(&["4", "4"]), None);
    }
}
