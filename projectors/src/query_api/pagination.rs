//! Pages of lists, and the cursors that lead from one page to the next.

use std::borrow::Cow;

use api_types::PageQuery;
use axum::http::header::{HeaderMap, HeaderValue, LINK};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use service_kit::problem::Problem;
use sha2::{Digest, Sha256};

use crate::store::{Page, Place};

/// Default number of rows of a page.
const DEFAULT_LIMIT: u32 = 50;
/// Maximum number of rows of a page.
const MAX_LIMIT: u32 = 200;

/// Prefix of the hashed content, so that no other hash of this program is a valid seal.
const SEAL_OF: &[u8] = b"dofs.cursor.v1";
/// Length of the seal at the end of a cursor, in bytes: enough to detect a changed cursor.
const SEAL_BYTES: usize = 8;

/// Content of a cursor: the list, its filter, and the key of the last row of the previous page.
#[derive(Serialize, Deserialize)]
struct Cursor<'a, F, K> {
    list: Cow<'a, str>,
    filter: F,
    #[serde(flatten)]
    after: K,
}

/// A request for a page of a list that is sorted by keys of the type `K`.
pub(super) struct Listing<F, K = Place> {
    path: &'static str,
    pub(super) filter: F,
    /// The key of the last row of the previous page.
    pub(super) after: Option<K>,
    limit: u32,
}

impl<F> Listing<F> {
    /// Returns the rows to read: one more than the limit, to know whether there is a next page.
    pub(super) fn page(&self) -> Page {
        Page { after: self.after, limit: self.limit + 1 }
    }
}

impl<F, K> Listing<F, K>
where
    F: Default + PartialEq + Serialize + DeserializeOwned,
    K: Serialize + DeserializeOwned,
{
    /// Returns the request for a page of the list at `path`. A cursor contains the filter. The request may
    /// repeat that filter, but not change it.
    pub(super) fn new(path: &'static str, filter: F, page: &PageQuery) -> Result<Self, Problem> {
        let limit = read_limit(page.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let Some(cursor) = &page.cursor else {
            return Ok(Self { path, filter, after: None, limit });
        };
        let cursor: Cursor<'_, F, K> = open_cursor(cursor).ok_or_else(invalid_cursor)?;
        let fits = cursor.list == path && (filter == F::default() || filter == cursor.filter);
        if !fits {
            return Err(invalid_cursor());
        }
        Ok(Self { path, filter: cursor.filter, after: Some(cursor.after), limit })
    }

    /// Returns the maximum number of rows of the page.
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Returns the number of rows to read, as [`Listing::page`] does.
    pub(super) fn n_rows(&self) -> u32 {
        self.limit + 1
    }

    /// Removes the extra row, and returns the headers of the page and the cursor of the next one.
    pub(super) fn finish_page<R>(
        &self,
        rows: &mut Vec<R>,
        key: impl Fn(&R) -> K,
    ) -> (HeaderMap, Option<String>) {
        let has_more = rows.len() > self.limit();
        rows.truncate(self.limit());
        self.finish_page_at(rows.last().filter(|_| has_more).map(key))
    }

    /// Returns the headers of a page and the cursor of the next one, which begins behind this key. `None`
    /// is the end of the list.
    pub(super) fn finish_page_at(&self, last: Option<K>) -> (HeaderMap, Option<String>) {
        let next = last.map(|last| self.cursor_after(last));
        (link_header(self.path, self.limit, next.as_deref()), next)
    }

    fn cursor_after(&self, after: K) -> String {
        seal_cursor(&Cursor { list: Cow::Borrowed(self.path), filter: &self.filter, after })
    }
}

/// Returns the number of rows of a page: `given` by the client, or the default.
pub(super) fn read_limit(given: Option<u32>, default: u32, max: u32) -> Result<u32, Problem> {
    let limit = given.unwrap_or(default);
    if !(1..=max).contains(&limit) {
        let reason = format!("must be from 1 to {max}");
        return Err(Problem::invalid_parameter("limit", reason));
    }
    Ok(limit)
}

/// Returns the `Link` header that leads to the next page; no header on the last page.
fn link_header(path: &str, limit: u32, next_cursor: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(next) = next_cursor {
        let link = format!("<{path}?limit={limit}&cursor={next}>; rel=\"next\"");
        headers.extend(HeaderValue::try_from(link).ok().map(|link| (LINK, link)));
    }
    headers
}

/// Returns the cursor with a content.
pub(super) fn seal_cursor(content: &impl Serialize) -> String {
    // Texts, numbers and times always serialise.
    let json = serde_json::to_vec(content).unwrap_or_default();
    URL_SAFE_NO_PAD.encode([json.as_slice(), &seal(&json)].concat())
}

/// Returns the error for a cursor of another list, or a changed one.
pub(super) fn invalid_cursor() -> Problem {
    let reason = "must be the next_cursor of a page of the same list, with the same parameters";
    Problem::invalid_parameter("cursor", reason)
}

/// Returns the content of a cursor that this program has made. The seal is not secret: it only detects
/// changed cursors. A cursor gives no access to other tenants, because it does not contain the tenant.
pub(super) fn open_cursor<T: DeserializeOwned>(cursor: &str) -> Option<T> {
    let sealed = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (json, found) = sealed.split_last_chunk::<SEAL_BYTES>()?;
    (seal(json) == *found).then(|| serde_json::from_slice(json).ok())?
}

fn seal(json: &[u8]) -> [u8; SEAL_BYTES] {
    let hash: [u8; 32] = Sha256::new_with_prefix(SEAL_OF).chain_update(json).finalize().into();
    std::array::from_fn(|index| hash[index])
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn changed_cursor_is_invalid() {
        let listing = Listing { path: "/v1/orders", filter: 7_u64, after: None, limit: 1 };
        let at = Timestamp::UNIX_EPOCH;
        let cursor = listing.cursor_after(Place { at, order_id: OrderId(uuid::Uuid::nil()) });
        assert_eq!(
            open_cursor::<Cursor<'_, u64, Place>>(&cursor).map(|cursor| cursor.filter),
            Some(7)
        );

        let sealed = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        let json = String::from_utf8(sealed[..sealed.len() - SEAL_BYTES].to_vec()).unwrap();
        let rest = &sealed[json.len()..];
        let changed = [json.replace('7', "8"), format!("{json} "), format!(" {json}")];
        let changed = changed.map(|json| [json.as_bytes(), rest].concat());
        for forged in changed.iter().map(Vec::as_slice).chain([json.as_bytes(), rest, &[]]) {
            assert!(
                open_cursor::<Cursor<'_, u64, Place>>(&URL_SAFE_NO_PAD.encode(forged)).is_none(),
                "{forged:?}"
            );
        }
    }
}
