//! Pages of a list: their parameters, and the cursor that leads from one to the next.

use axum::http::header::{HeaderMap, HeaderValue, LINK};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::ids::OrderId;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use service_kit::problem::Problem;

use crate::store::{Page, Place};

/// Rows of a page, unless asked for another number.
const DEFAULT_LIMIT: u32 = 50;
/// The most rows of a page.
const MAX_LIMIT: u32 = 200;

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
            return Err(Problem::invalid_parameters());
        }
        let Some(cursor) = &page.cursor else {
            return Ok(Self { path, filter, after: None, limit });
        };
        let cursor: Cursor<F> = decoded(cursor).ok_or_else(Problem::invalid_parameters)?;
        let fits = cursor.list == path && (filter == F::default() || filter == cursor.filter);
        if !fits {
            return Err(Problem::invalid_parameters());
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
        let cursor = json!({
            "list": self.path,
            "filter": self.filter,
            "at": place.at,
            "order_id": place.order_id,
        });
        URL_SAFE_NO_PAD.encode(cursor.to_string())
    }
}

fn decoded<F: DeserializeOwned>(cursor: &str) -> Option<Cursor<F>> {
    let json = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    serde_json::from_slice(&json).ok()
}
