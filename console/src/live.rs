//! Live pages: the server renders the regions of an open page again and sends those that changed.
//!
//! All visitors with the same key on the same page share one rendering, so that many open pages cost
//! little more than one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt};
use jiff::Timestamp;
use maud::Markup;
use serde::Deserialize;
use serde_json::{Map, Value};
use service_kit::clock::Clock;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::SharedState;
use crate::api::{Api, ApiError};
use crate::pages;
use crate::regions::PageAddress;
use crate::visit::Visit;

/// Time between two renderings.
const INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of open streams of one process.
const MAX_STREAMS: usize = 2_000;

/// The pages that are open now.
pub(crate) struct LiveHub {
    pages: Mutex<HashMap<PageKey, Weak<OpenPage>>>,
    /// One permit for each stream that may be opened.
    slots: Arc<Semaphore>,
}

/// Visitor's permissions and page. The key is a hash, because it contains an API key.
type PageKey = [u8; 32];

/// A page that at least one visitor has open.
struct OpenPage {
    api: Api,
    address: PageAddress,
    clock: Clock,
    rendering: tokio::sync::Mutex<Option<(Instant, Arc<Rendering>)>>,
}

/// The regions, or the reason to end the stream.
type Rendering = Result<Vec<RenderedRegion>, ApiError>;

/// A region of a page as text.
struct RenderedRegion {
    name: &'static str,
    html: String,
    /// The text without ages. The script of the page keeps the ages current.
    timeless: String,
}

impl LiveHub {
    pub(crate) fn new() -> Self {
        Self { pages: Mutex::default(), slots: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }

    /// Returns the shared page and the slot of the stream; `None` if too many streams are open.
    fn open(
        &self,
        api: Api,
        address: PageAddress,
        clock: &Clock,
    ) -> Option<(Arc<OpenPage>, OwnedSemaphorePermit)> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        let key = Sha256::new()
            .chain_update(api.identity())
            .chain_update([0])
            .chain_update(&address.path)
            .chain_update([0])
            .chain_update(&address.query)
            .finalize()
            .into();
        // The lock's data is consistent at every step.
        let mut pages = self.pages.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(page) = pages.get(&key).and_then(Weak::upgrade) {
            return Some((page, slot));
        }
        pages.retain(|_, page| page.strong_count() > 0);
        let clock = clock.clone();
        let page = OpenPage { api, address, clock, rendering: tokio::sync::Mutex::default() };
        let page = Arc::new(page);
        pages.insert(key, Arc::downgrade(&page));
        Some((page, slot))
    }
}

impl OpenPage {
    /// Returns the current regions, which at most one visitor at a time renders. The rendering is not
    /// older than `opened_at`: an older one would undo what the visitor has just changed.
    async fn render(&self, opened_at: Instant) -> Arc<Rendering> {
        let mut rendering = self.rendering.lock().await;
        let is_fresh = |at: Instant| at >= opened_at && at.elapsed() < INTERVAL;
        let fresh = rendering.as_ref().filter(|(at, _)| is_fresh(*at));
        if let Some((_, fresh)) = fresh {
            return Arc::clone(fresh);
        }
        let started = Instant::now();
        let regions = pages::render_regions(&self.api, &self.address, self.clock.now()).await;
        let regions = Arc::new(regions.map(|regions| {
            regions.into_iter().map(|(name, markup)| RenderedRegion::new(name, markup)).collect()
        }));
        *rendering = Some((started, Arc::clone(&regions)));
        regions
    }
}

impl RenderedRegion {
    fn new(name: &'static str, markup: Markup) -> Self {
        let html = markup.into_string();
        let timeless = remove_ages(&html);
        Self { name, html, timeless }
    }
}

/// Returns a region's text without the content of its `time` elements. Escaped text cannot look like the
/// end of a tag.
fn remove_ages(html: &str) -> String {
    let mut parts = html.split("data-relative>");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once("</time>").map_or(part, |(_, rest)| rest))
}

#[derive(Deserialize)]
pub(crate) struct LiveQuery {
    page: String,
}

/// Streams the regions of a page.
pub(crate) async fn stream_regions(
    State(state): State<SharedState>,
    Query(query): Query<LiveQuery>,
    visit: Visit,
) -> Response {
    let address = PageAddress::parse(&query.page);
    let opened = state.live.open(visit.api.clone(), address, &state.clock);
    let Some((page, slot)) = opened else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let events = changed_regions(page, slot, visit.session.expires_at)
        .take_until(state.stop.clone().cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// Returns the changes of a page's regions: first all, then those that changed. The stream ends with the
/// session, and holds its slot until then.
fn changed_regions(
    page: Arc<OpenPage>,
    slot: OwnedSemaphorePermit,
    expires_at: Timestamp,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let opened_at = Instant::now();
    let begin = (page, slot, None::<Arc<Rendering>>, false);
    stream::unfold(begin, move |(page, slot, mut sent, ended)| async move {
        if ended {
            return None;
        }
        loop {
            if sent.is_some() {
                sleep(INTERVAL).await;
            }
            if page.clock.now() >= expires_at {
                return Some((Ok(expired_event()), (page, slot, sent, true)));
            }
            let rendering = page.render(opened_at).await;
            let Ok(regions) = rendering.as_ref() else {
                return Some((Ok(expired_event()), (page, slot, sent, true)));
            };
            let previous = sent.replace(Arc::clone(&rendering));
            let previous = previous.as_deref().and_then(|previous| previous.as_ref().ok());
            let changed = differing_regions(previous.map_or(&[], Vec::as_slice), regions);
            if !changed.is_empty() {
                let event =
                    Event::default().event("regions").data(Value::Object(changed).to_string());
                return Some((Ok(event), (page, slot, sent, false)));
            }
        }
    })
}

/// Tells the page to load again, which leads to the sign-in. Browsers ignore a message without data.
fn expired_event() -> Event {
    Event::default().event("expired").data("{}")
}

fn differing_regions(
    previous: &[RenderedRegion],
    current: &[RenderedRegion],
) -> Map<String, Value> {
    let is_changed = |region: &&RenderedRegion| {
        let before = previous.iter().find(|before| before.name == region.name);
        before.is_none_or(|before| before.timeless != region.timeless)
    };
    let changed = current.iter().filter(is_changed);
    changed.map(|region| (region.name.to_owned(), Value::String(region.html.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_removed_from_a_region() {
        let html = "a <time data-relative>5 s ago</time> b <time data-relative>1 h ago</time> c";
        assert_eq!(remove_ages(html), "a <time  b <time  c");
        assert_eq!(remove_ages("no times"), "no times");
    }
}
