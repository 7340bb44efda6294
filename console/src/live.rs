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
    rendering: tokio::sync::Mutex<Option<Arc<Rendering>>>,
}

/// The regions of a page at one time.
struct Rendering {
    started_at: Instant,
    /// The regions, or the reason to end the stream.
    regions: Result<Vec<RenderedRegion>, ApiError>,
    /// The rendering before this one. Most visitors have it.
    previous: Weak<Rendering>,
    /// What changed since the previous rendering, encoded once for all visitors.
    change: Option<String>,
}

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
        let mut newest = self.rendering.lock().await;
        let is_fresh = |at: Instant| at >= opened_at && at.elapsed() < INTERVAL;
        if let Some(fresh) = newest.as_ref().filter(|newest| is_fresh(newest.started_at)) {
            return Arc::clone(fresh);
        }
        let started_at = Instant::now();
        let regions = pages::render_regions(&self.api, &self.address, self.clock.now()).await;
        let regions = regions.map(|regions| {
            regions.into_iter().map(|(name, markup)| RenderedRegion::new(name, markup)).collect()
        });
        let previous = newest.take();
        let change = encode_change(previous.as_deref(), &regions);
        let previous = previous.as_ref().map(Arc::downgrade).unwrap_or_default();
        let rendering = Arc::new(Rendering { started_at, regions, previous, change });
        *newest = Some(Arc::clone(&rendering));
        rendering
    }
}

impl Rendering {
    /// Returns the message for a visitor who has `sent`; `None` if nothing has changed for the visitor.
    fn message_after(self: &Arc<Self>, sent: Option<&Arc<Self>>) -> Option<Event> {
        if sent.is_some_and(|sent| Arc::ptr_eq(sent, self)) {
            return None;
        }
        let has_previous =
            sent.is_some_and(|sent| Weak::ptr_eq(&Arc::downgrade(sent), &self.previous));
        let event = |data: &str| Event::default().event("regions").data(data);
        if has_previous {
            return self.change.as_deref().map(event);
        }
        encode_change(sent.map(Arc::as_ref), &self.regions).as_deref().map(event)
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
            if rendering.regions.is_err() {
                return Some((Ok(expired_event()), (page, slot, sent, true)));
            }
            let message = rendering.message_after(sent.as_ref());
            sent = Some(rendering);
            if let Some(message) = message {
                return Some((Ok(message), (page, slot, sent, false)));
            }
        }
    })
}

/// Tells the page to load again, which leads to the sign-in. Browsers ignore a message without data.
fn expired_event() -> Event {
    Event::default().event("expired").data("{}")
}

/// Returns the regions that differ from an earlier rendering, by name; `None` if none does.
fn encode_change(
    before: Option<&Rendering>,
    current: &Result<Vec<RenderedRegion>, ApiError>,
) -> Option<String> {
    let before = before.and_then(|before| before.regions.as_ref().ok());
    let is_changed = |region: &&RenderedRegion| {
        let before = before.into_iter().flatten().find(|before| before.name == region.name);
        before.is_none_or(|before| before.timeless != region.timeless)
    };
    let changed = current.as_ref().ok()?.iter().filter(is_changed);
    let changed: Map<_, _> = changed
        .map(|region| (region.name.to_owned(), Value::String(region.html.clone())))
        .collect();
    (!changed.is_empty()).then(|| Value::Object(changed).to_string())
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
