//! `GET /v1/events/stream`: events of orders as they are appended (server-sent events).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api_types::{FeedEvent, FeedMessage, FeedReset, FeedResetReason, StreamEventsQuery};
use axum::extract::State;
use axum::http::header::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use event_log::{FeedItem, LoggedEvent, OrderFeed, Position, ResetReason};
use futures::Stream;
use futures::stream::unfold;
use serde::Serialize;
use service_kit::auth::Principal;
use service_kit::extract::QueryParameters;
use service_kit::mutex::lock;
use service_kit::problem::{Code, Problem};
use tokio::time::timeout;

use super::event_filter::EventFilter;
use super::order_history::to_recorded_event;
use super::ownership::RequestPrincipal;
use super::{Queries, QueryState, log_failed};

/// Maximum number of clients.
const MAX_CLIENTS: usize = 256;
/// Maximum number of clients of one API key: other keys can use the rest.
const MAX_CLIENTS_OF_KEY: usize = 128;
/// Interval without events after which a client gets a comment, so that it and its proxies know that the
/// connection works.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Time after which a client should reconnect.
const RECONNECT: Duration = Duration::from_secs(2);
/// Maximum time until the stream begins; the event store may be unavailable.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks proxies not to buffer the stream.
const ACCEL_BUFFERING: (&str, &str) = ("x-accel-buffering", "no");

/// Slots of the clients: how many each actor uses.
#[derive(Clone, Default)]
pub(super) struct ClientSlots(Arc<Mutex<BTreeMap<String, usize>>>);

/// Slot of a client. Dropping it frees the slot.
struct ClientSlot {
    slots: ClientSlots,
    actor: String,
}

impl ClientSlots {
    /// Takes a slot for an actor; `None` if the actor uses `most` slots, or all are in use.
    fn take(&self, actor: &str, most: usize) -> Option<ClientSlot> {
        let mut taken = lock(&self.0);
        let n_own = taken.get(actor).copied().unwrap_or_default();
        if n_own >= most || taken.values().sum::<usize>() >= MAX_CLIENTS {
            return None;
        }
        taken.insert(actor.to_owned(), n_own + 1);
        drop(taken);
        Some(ClientSlot { slots: self.clone(), actor: actor.to_owned() })
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let mut taken = lock(&self.slots.0);
        let left = taken.remove(&self.actor).unwrap_or_default().saturating_sub(1);
        if left > 0 {
            taken.insert(std::mem::take(&mut self.actor), left);
        }
    }
}

/// Stream the events of orders
///
/// Server-sent events. A message has the type of the event as its name, and its position as its id. The
/// message `reset` ends a stream that cannot continue. A key of one tenant gets the events of that
/// tenant's orders. The stream ends if the key is revoked or expires.
#[utoipa::path(
    get, path = "/v1/events/stream", operation_id = "streamEvents", tag = "events",
    security(("api_key" = ["audit:read"])),
    params(
        StreamEventsQuery,
        ("Last-Event-ID" = String, Header, pattern = "^[0-9]{1,15}-[0-9]{1,15}$", description = "Resume after the message with this id"),
    ),
    responses(
        (status = 200, description = "The stream. `data` of each message has this schema", body = FeedMessage, content_type = "text/event-stream", headers(
            ("Cache-Control" = String, description = "`no-cache`"),
            ("X-Accel-Buffering" = String, description = "`no`: proxies must not buffer the stream"),
        )),
    ),
)]
pub(super) async fn stream_events(
    State(QueryState { queries, slots, .. }): State<QueryState>,
    RequestPrincipal(principal): RequestPrincipal,
    QueryParameters(query): QueryParameters<StreamEventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = EventFilter::new(query, principal.tenant.clone())?;
    let after = last_event_position(&headers)?;
    let most = if principal.is_anonymous() { MAX_CLIENTS } else { MAX_CLIENTS_OF_KEY };
    let slot = slots.take(&principal.actor, most);
    let slot = slot.ok_or_else(|| Problem::overloaded("Too many clients of the event stream"))?;
    let feed = timeout(BEGIN_TIMEOUT, queries.log.open_feed(after)).await.map_err(|_| {
        Problem::unavailable("Event store unavailable").with_code(Code::EventStoreUnavailable)
    })?;
    let feed = feed.map_err(log_failed)?;
    let messages = to_messages(Listener { feed, filter, principal, queries, _slot: slot });
    Ok(([ACCEL_BUFFERING], to_sse(messages, HEARTBEAT)).into_response())
}

/// Returns the position of `Last-Event-ID`.
fn last_event_position(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let mut ids = headers.get_all(LAST_EVENT_ID).iter();
    let Some(id) = ids.next().filter(|id| !id.is_empty()) else { return Ok(None) };
    let position = id.to_str().ok().filter(|_| ids.next().is_none()).and_then(|id| {
        let (commit, prepare) = id.split_once('-')?;
        let position = Position { commit: commit.parse().ok()?, prepare: prepare.parse().ok()? };
        // An event is prepared before it is committed.
        (position.prepare <= position.commit).then_some(position)
    });
    position.map(Some).ok_or_else(Problem::invalid_parameters)
}

fn to_sse(
    messages: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
    heartbeat: Duration,
) -> impl IntoResponse {
    Sse::new(messages).keep_alive(KeepAlive::new().interval(heartbeat).text("alive"))
}

/// A client of the stream.
struct Listener {
    feed: OrderFeed,
    filter: EventFilter,
    principal: Principal,
    queries: Arc<Queries>,
    _slot: ClientSlot,
}

impl Listener {
    /// Returns the next message; `None` at the end. If the owner of an order cannot be read, the stream ends
    /// and the client resumes: skipping the event would leave a gap.
    async fn next(&mut self) -> Option<Event> {
        let Queries { access, clock, owners, .. } = &*self.queries;
        let ended = access.ended(&self.principal, clock);
        let mut ended = std::pin::pin!(ended);
        loop {
            let fed = tokio::select! {
                // The end of the key comes first: a stream that always has an event must not outlive it.
                biased;
                () = &mut ended => {
                    tracing::info!(actor = self.principal.actor, "Event stream ended with its key");
                    return None;
                }
                fed = self.feed.next() => fed?,
            };
            match fed {
                FeedItem::Event(event) => match self.filter.matches(&event, owners).await {
                    Ok(true) => return Some(to_message(&event)),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn Error, "Event stream ended");
                        return None;
                    }
                },
                FeedItem::Reset(reason) => return Some(reset_message(reason)),
            }
        }
    }
}

/// Returns the messages of a client, the first of which is a comment.
fn to_messages(
    listener: Listener,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let begun = Event::default().retry(RECONNECT).comment("events follow");
    unfold((Some(begun), listener), async |(begun, mut listener)| {
        let event = match begun {
            Some(begun) => begun,
            None => listener.next().await?,
        };
        Some((Ok(event), (None, listener)))
    })
}

pub(super) fn to_feed_event(event: &LoggedEvent) -> FeedEvent {
    FeedEvent { order_id: event.order_id.0, event: to_recorded_event(event) }
}

fn to_message(event: &LoggedEvent) -> Event {
    let Position { commit, prepare } = event.position;
    let data = to_feed_event(event);
    // A message name must not have line breaks, which the types of other tools may have.
    let name = event.event_type.replace(['\r', '\n', '\0'], " ");
    Event::default().id(format!("{commit}-{prepare}")).event(name).data(to_json(&data))
}

/// Returns the last message of a stream that cannot continue. A client that is too slow keeps its last
/// event id; an unknown id is cleared.
fn reset_message(reason: ResetReason) -> Event {
    let (reason, message) = match reason {
        ResetReason::TooSlow => (FeedResetReason::TooSlow, Event::default()),
        ResetReason::UnknownPosition => (FeedResetReason::UnknownPosition, Event::default().id("")),
    };
    message.event("reset").data(to_json(&FeedReset { reason }))
}

fn to_json(data: &impl Serialize) -> String {
    // Texts, numbers, times and JSON always serialise, without line breaks.
    serde_json::to_string(data).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn silent_stream_sends_heartbeats() {
        let silent = futures::stream::pending();
        let response = to_sse(silent, Duration::from_millis(1)).into_response();
        let mut body: Body = response.into_body();
        for _ in 0..2 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, ": alive\n\n");
        }
    }

    #[test]
    fn one_actor_cannot_take_all_slots() {
        let slots = ClientSlots::default();
        let take = |actor, count: usize| -> Vec<ClientSlot> {
            (0..count).filter_map(|_| slots.take(actor, MAX_CLIENTS_OF_KEY)).collect()
        };
        let mut of_one = take("one", MAX_CLIENTS);
        assert_eq!(of_one.len(), MAX_CLIENTS_OF_KEY);
        let of_two = take("two", 100);
        assert_eq!((of_two.len(), take("three", 100).len()), (100, 28), "no more than all");
        of_one.pop();
        assert!(slots.take("one", MAX_CLIENTS_OF_KEY).is_some(), "a slot is free again");
        drop((of_one, of_two));
        assert!(lock(&slots.0).is_empty());
    }

    #[test]
    fn last_event_id_is_two_numbers() {
        let of = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, id.parse().unwrap());
            last_event_position(&headers)
        };
        assert_eq!(of("7-5").unwrap(), Some(Position { commit: 7, prepare: 5 }));
        assert_eq!(of("").unwrap(), None, "a client whose slot was reset");
        for wrong in ["7", "-", "7-", "x-1", "1-1-1", "5-7"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
