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
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use maud::Markup;
use serde::Deserialize;
use serde_json::{Map, Value};
use service_kit::clock::Clock;
use service_kit::mutex::lock;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::SharedState;
use crate::api::{Api, ApiError};
use crate::pages;
use crate::regions::PageAddress;
use crate::response::UNBUFFERED;
use crate::visit::Visit;

/// Time between two renderings.
const INTERVAL: Duration = Duration::from_secs(2);
/// Maximum time between two messages of a stream. The script takes a stream for broken that is silent for three
/// times as long; it would not see a comment.
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of open streams of one process.
const MAX_STREAMS: usize = 2_000;
/// Maximum number of open streams of one API key: one visitor cannot take the streams of all others.
const MAX_STREAMS_PER_KEY: usize = 500;

/// The pages that are open now.
pub(crate) struct LiveHub {
    /// Open pages, by visitor's permissions and address.
    pages: SharedValues<OpenPage>,
    /// One permit for each stream that may be opened.
    slots: Arc<Semaphore>,
    /// The same for each API key that has open streams.
    slots_by_key: SharedValues<Semaphore>,
}

/// Values in use, by the hash of their key. Hashes, because the keys contain API keys.
type SharedValues<T> = Mutex<HashMap<[u8; 32], Weak<T>>>;

/// Permits for one stream: of the process, and of the API key.
type Slot = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

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
        Self {
            pages: Mutex::default(),
            slots: Arc::new(Semaphore::new(MAX_STREAMS)),
            slots_by_key: Mutex::default(),
        }
    }

    /// Reserves a stream for a visitor.
    ///
    /// # Errors
    /// The status of the response if too many streams are open.
    fn reserve_slot(&self, visit: &Visit) -> Result<Slot, StatusCode> {
        let of_key = visit.principal.requires_key.then(|| {
            let key = Sha256::digest(visit.api.identity()).into();
            let slots = share(&self.slots_by_key, key, || Semaphore::new(MAX_STREAMS_PER_KEY));
            slots.try_acquire_owned().map_err(|_| StatusCode::TOO_MANY_REQUESTS)
        });
        let of_key = of_key.transpose()?;
        let of_process = Arc::clone(&self.slots).try_acquire_owned();
        Ok((of_process.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?, of_key))
    }

    /// Returns the page that all visitors with the same key share.
    fn open(&self, api: &Api, address: PageAddress, clock: &Clock) -> Arc<OpenPage> {
        let key = Sha256::new()
            .chain_update(api.identity())
            .chain_update([0])
            .chain_update(&address.path)
            .chain_update([0])
            .chain_update(&address.query)
            .finalize()
            .into();
        share(&self.pages, key, || OpenPage {
            api: api.clone().without_request_id(),
            address,
            clock: clock.clone(),
            rendering: tokio::sync::Mutex::default(),
        })
    }
}

/// Returns the value with a key, which is created if it is not in use.
fn share<T>(values: &SharedValues<T>, key: [u8; 32], create: impl FnOnce() -> T) -> Arc<T> {
    let mut values = lock(values);
    if let Some(value) = values.get(&key).and_then(Weak::upgrade) {
        return value;
    }
    values.retain(|_, value| value.strong_count() > 0);
    let value = Arc::new(create());
    values.insert(key, Arc::downgrade(&value));
    value
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

/// Streams the regions of a page: first all, then those that changed.
pub(crate) async fn stream_regions(
    State(state): State<SharedState>,
    Query(query): Query<LiveQuery>,
    visit: Visit,
) -> Response {
    let address = PageAddress::parse(&query.page);
    let slot = match state.live.reserve_slot(&visit) {
        Ok(slot) => slot,
        Err(status) => return status.into_response(),
    };
    let opened_at = Instant::now();
    let page = state.live.open(&visit.api, address, &state.clock);
    let rendering = page.render(opened_at).await;
    let first = match &rendering.regions {
        Err(error) => return error.status.into_response(),
        Ok(_) => rendering.message_after(None),
    };
    let Some(first) = first else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let stream = OpenStream {
        page,
        sent: rendering,
        opened_at,
        expires_at: visit.session.expires_at,
        _slot: slot,
    };
    let messages = stream::once(async { first })
        .chain(stream::unfold(Some(stream), OpenStream::next_message))
        .take_until(state.stop.clone().cancelled_owned())
        .map(Ok::<_, Infallible>);
    let alive = Event::default().event("alive").data("{}");
    let messages =
        Sse::new(messages).keep_alive(KeepAlive::new().interval(ALIVE_INTERVAL).event(alive));
    ([UNBUFFERED], messages).into_response()
}

/// The stream of one visitor.
struct OpenStream {
    page: Arc<OpenPage>,
    /// The rendering that the visitor has.
    sent: Arc<Rendering>,
    opened_at: Instant,
    /// End of the visitor's session, and so of the stream.
    expires_at: Timestamp,
    _slot: Slot,
}

impl OpenStream {
    /// Waits until a region has changed, and returns the message. The stream is `None` after its last one.
    async fn next_message(stream: Option<Self>) -> Option<(Event, Option<Self>)> {
        let mut stream = stream?;
        loop {
            sleep(INTERVAL).await;
            if stream.page.clock.now() >= stream.expires_at {
                return Some((expired_event(), None));
            }
            let rendering = stream.page.render(stream.opened_at).await;
            if rendering.regions.is_err() {
                return Some((expired_event(), None));
            }
            let message = rendering.message_after(Some(&stream.sent));
            stream.sent = rendering;
            if let Some(message) = message {
                return Some((message, Some(stream)));
            }
        }
    }
}

/// Returns the message that makes the page load again, which leads to the sign-in. Browsers ignore a message
/// without data.
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
