//! Pages of a list: their parameters, and the cursor that leads from one to the next.

use axum::http::header::{HeaderMap, HeaderValue, LINK};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::ids::OrderId;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::problem::Problem;
use sha2::{Digest, Sha256};

use crate::store::{Page, Place};

/// Rows of a page, unless asked for another number.
const DEFAULT_LIMIT: u32 = 50;
/// The most rows of a page.
const MAX_LIMIT: u32 = 200;

/// What is hashed together with a cursor, so that no other hash of ours is taken for its seal.
const SEAL_OF: &[u8] = b"dofs.cursor.v1";
/// The length of the seal behind a cursor, in bytes: enough to know that somebody changed it.
const SEAL_BYTES: usize = 8;

/// Which part of a list is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct PageParameters {
    limit: Option<u32>,
    cursor: Option<String>,
}

/// What a cursor holds: the last place of the page before, and the list with its filter, which all
/// pages share.
#[derive(Serialize, Deserialize)]
struct Cursor<F> {
    list: String,
    filter: F,
    at: Timestamp,
    order_id: OrderId,
}

/// A page as answers show it.
#[derive(Serialize)]
pub(super) struct Answer<S> {
    items: Vec<S>,
    next_cursor: Option<String>,
}

/// A list that is asked for page by page.
pub(super) struct Listing<F> {
    path: &'static str,
    pub(super) filter: F,
    after: Option<Place>,
    limit: u32,
}

impl<F> Listing<F>
where
    F: Default + PartialEq + Serialize + DeserializeOwned,
{
    /// The list at `path`. A cursor brings its filter, which may be given again with the cursor;
    /// another one may not.
    pub(super) fn new(
        path: &'static str,
        filter: F,
        page: &PageParameters,
    ) -> Result<Self, Problem> {
        let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let reason = format!("must be from 1 to {MAX_LIMIT}");
            return Err(Problem::invalid_parameter("limit", reason));
        }
        let Some(cursor) = &page.cursor else {
            return Ok(Self { path, filter, after: None, limit });
        };
        let cursor: Cursor<F> = opened(cursor).ok_or_else(refused)?;
        let fits = cursor.list == path && (filter == F::default() || filter == cursor.filter);
        if !fits {
            return Err(refused());
        }
        let after = Some(Place { at: cursor.at, order_id: cursor.order_id });
        Ok(Self { path, filter: cursor.filter, after, limit })
    }

    /// The part of the list to read: one row more than is shown, to know whether that is all.
    pub(super) fn page(&self) -> Page {
        Page { after: self.after, limit: self.limit + 1 }
    }

    /// The answer: the rows of the page, and where the next one is.
    pub(super) fn answer<R, S>(
        &self,
        mut rows: Vec<R>,
        place: impl Fn(&R) -> Place,
        shown: impl Fn(R) -> S,
    ) -> (HeaderMap, axum::Json<Answer<S>>) {
        let n_shown = self.limit as usize;
        let more = rows.len() > n_shown;
        rows.truncate(n_shown);
        let next = rows.last().filter(|_| more).map(|last| self.cursor_behind(place(last)));

        let mut headers = HeaderMap::new();
        if let Some(next) = &next {
            let link = format!("<{}?limit={}&cursor={next}>; rel=\"next\"", self.path, self.limit);
            headers.extend(HeaderValue::try_from(link).ok().map(|it| (LINK, it)));
        }
        let items = rows.into_iter().map(shown).collect();
        (headers, axum::Json(Answer { items, next_cursor: next }))
    }

    fn cursor_behind(&self, place: Place) -> String {
        sealed(&json!({
            "list": self.path,
            "filter": self.filter,
            "at": place.at,
            "order_id": place.order_id,
        }))
    }
}

/// The cursor that holds a value.
pub(super) fn sealed(held: &Value) -> String {
    let json = held.to_string();
    URL_SAFE_NO_PAD.encode([json.as_bytes(), &seal(json.as_bytes())].concat())
}

/// The answer to a cursor that leads nowhere in what is asked for.
pub(super) fn refused() -> Problem {
    let reason = "must be the next_cursor of a page of the same list, with the same parameters";
    Problem::invalid_parameter("cursor", reason)
}

/// What a cursor holds, if it is one of ours. The seal is no secret: it tells a client that makes
/// its own that this is not how lists are read. Rows of others are never behind a cursor, because
/// the tenant is not in it.
pub(super) fn opened<T: DeserializeOwned>(cursor: &str) -> Option<T> {
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
    use super::*;

    #[test]
    fn cursor_that_was_changed_is_none() {
        let listing = Listing { path: "/v1/orders", filter: 7_u64, after: None, limit: 1 };
        let at = Timestamp::UNIX_EPOCH;
        let cursor = listing.cursor_behind(Place { at, order_id: OrderId(uuid::Uuid::nil()) });
        assert_eq!(opened::<Cursor<u64>>(&cursor).map(|it| it.filter), Some(7));

        let sealed = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        let json = String::from_utf8(sealed[..sealed.len() - SEAL_BYTES].to_vec()).unwrap();
        let rest = &sealed[json.len()..];
        let changed = [json.replace('7', "8"), format!("{json} "), format!(" {json}")];
        let changed = changed.map(|it| [it.as_bytes(), rest].concat());
        for forged in changed.iter().map(Vec::as_slice).chain([json.as_bytes(), rest, &[]]) {
            assert!(opened::<Cursor<u64>>(&URL_SAFE_NO_PAD.encode(forged)).is_none(), "{forged:?}");
        }
    }
}
