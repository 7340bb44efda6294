//! `GET /v1/events/stream`: what happens to orders, as it happens (server-sent events).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use domain::ids::OrderId;
use domain::order::EVENT_TYPES;
use event_log::{EventLog, FeedItem, LogError, LoggedEvent, OrderFeed, Position, ResetReason};
use futures::Stream;
use futures::stream::unfold;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::auth::{Access, Principal};
use service_kit::clock::Clock;
use service_kit::extract::QueryParameters;
use service_kit::problem::{Code, Problem};
use tokio::time::timeout;
use utoipa::ToSchema;
use uuid::Uuid;

use super::history::json_or_text;
use super::log_failed;
use super::owners::Owners;
use super::ownership::Known;

/// The most clients at a time.
const MAX_CLIENTS: usize = 256;
/// The most of one API key: it leaves as many to the others.
const MAX_CLIENTS_OF_KEY: usize = 128;
/// How long a client hears nothing before it gets a comment, so that it and everything between
/// know that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client should wait before it connects again.
const RECONNECT: Duration = Duration::from_secs(2);
/// How long a client waits for a feed that cannot begin, because the event store is down.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks proxies not to hold events back.
const ACCEL_BUFFERING: (&str, &str) = ("x-accel-buffering", "no");

/// Which events are wanted. What is not given does not restrict them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    order_id: Option<String>,
    /// Names of event types, separated by commas.
    types: Option<String>,
}

/// What passes the filter.
struct Filter {
    /// Only orders of this tenant.
    tenant: Option<String>,
    order_id: Option<OrderId>,
    types: Option<BTreeSet<String>>,
}

impl Wanted {
    fn parsed(self, tenant: Option<String>) -> Result<Filter, Problem> {
        let order_id = self.order_id.map(|it| super::order_id(&it)).transpose()?;
        let types: Option<BTreeSet<String>> =
            self.types.map(|it| it.split(',').map(str::to_owned).collect());
        let mut names = types.iter().flatten();
        if names.any(|it| !EVENT_TYPES.contains(&it.as_str())) {
            let reason = format!("must be of: {}", EVENT_TYPES.join(", "));
            return Err(Problem::invalid_parameter("types", reason));
        }
        Ok(Filter { tenant, order_id, types })
    }
}

impl Filter {
    async fn passes(&self, event: &LoggedEvent, owners: &Owners) -> Result<bool, LogError> {
        let is_wanted = self.order_id.is_none_or(|it| it == event.order_id)
            && self.types.as_ref().is_none_or(|it| it.contains(&event.event_type));
        match &self.tenant {
            Some(tenant) if is_wanted => {
                Ok(owners.of_event(event).await?.as_deref() == Some(tenant.as_str()))
            }
            Some(_) | None => Ok(is_wanted),
        }
    }
}

/// Where the events come from, who may have them, and the places of the clients.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) log: EventLog,
    pub(super) owners: Owners,
    pub(super) access: Access,
    pub(super) clock: Clock,
    pub(super) places: Places,
}

/// The places of the clients: how many each actor has taken.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<String, usize>>>);

/// A client's place. Free again when this is dropped.
struct Place {
    places: Places,
    actor: String,
}

impl Places {
    /// A place for an actor that may have so many; `None` if it has them, or nobody can have one.
    fn take(&self, actor: &str, most: usize) -> Option<Place> {
        let mut taken = self.lock();
        let n_own = taken.get(actor).copied().unwrap_or_default();
        if n_own >= most || taken.values().sum::<usize>() >= MAX_CLIENTS {
            return None;
        }
        taken.insert(actor.to_owned(), n_own + 1);
        drop(taken);
        Some(Place { places: self.clone(), actor: actor.to_owned() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        let left = taken.remove(&self.actor).unwrap_or_default().saturating_sub(1);
        if left > 0 {
            taken.insert(std::mem::take(&mut self.actor), left);
        }
    }
}

/// The feed's route.
pub(super) fn routes(source: Source) -> Router {
    Router::new().route("/v1/events/stream", get(stream_events)).with_state(source)
}

/// Listen to what happens to orders
///
/// Server-sent events: each event's type, and as data what the schema `FeedEvent` describes; for a
/// key of one tenant, those of its orders. The event `reset` ends a feed that cannot go on; a feed
/// whose key is revoked or expires ends.
#[utoipa::path(
    get, path = "/v1/events/stream", tag = "events",
    params(
        ("order_id" = uuid::Uuid, Query, description = "Only events of this order"),
        ("types" = String, Query, description = "Only events of these types, separated by commas", pattern = "^(Order(Received|Validated|Stored|Queued|Fulfilled|Failed)|FulfillmentDelivery(Failed|Started)|DeadLetterDiscarded)$"),
        ("Last-Event-ID" = String, Header, pattern = "^[0-9]{1,15}-[0-9]{1,15}$", description = "Go on behind this event"),
    ),
    responses(
        (status = 200, description = "The feed", body = String, content_type = "text/event-stream", headers(
            ("Cache-Control" = String, description = "`no-cache`"),
            ("X-Accel-Buffering" = String, description = "`no`: proxies must not hold events back"),
        )),
        (status = 400, description = "A parameter or a header is malformed", body = service_kit::api_doc::Message),
    ),
)]
pub(super) async fn stream_events(
    State(source): State<Source>,
    Known(principal): Known,
    QueryParameters(wanted): QueryParameters<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = wanted.parsed(principal.tenant.clone())?;
    let after = last_event(&headers)?;
    let most = if principal.is_anonymous() { MAX_CLIENTS } else { MAX_CLIENTS_OF_KEY };
    let place = source.places.take(&principal.actor, most);
    let place = place.ok_or_else(|| Problem::overloaded("Too many clients of the event stream"))?;
    let feed = timeout(BEGIN_TIMEOUT, source.log.open_feed(after)).await.map_err(|_| {
        Problem::unavailable("Event store unavailable").with_code(Code::EventStoreUnavailable)
    })?;
    let feed = feed.map_err(log_failed)?;
    let events = events(Listener { feed, filter, principal, source, _place: place });
    Ok(([ACCEL_BUFFERING], sse(events, HEARTBEAT)).into_response())
}

/// The place behind which a client wants to go on.
fn last_event(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let mut ids = headers.get_all(LAST_EVENT_ID).iter();
    let Some(id) = ids.next().filter(|it| !it.is_empty()) else { return Ok(None) };
    let position = id.to_str().ok().filter(|_| ids.next().is_none()).and_then(|it| {
        let (commit, prepare) = it.split_once('-')?;
        let position = Position { commit: commit.parse().ok()?, prepare: prepare.parse().ok()? };
        // An event is prepared before it is committed.
        (position.prepare <= position.commit).then_some(position)
    });
    position.map(Some).ok_or_else(Problem::invalid_parameters)
}

fn sse(
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
    heartbeat: Duration,
) -> impl IntoResponse {
    Sse::new(events).keep_alive(KeepAlive::new().interval(heartbeat).text("alive"))
}

/// A client, and what it gets.
struct Listener {
    feed: OrderFeed,
    filter: Filter,
    principal: Principal,
    source: Source,
    _place: Place,
}

impl Listener {
    /// The next event for the client; `None` at the end. A client that cannot be told whose an
    /// order is has to come again: to pass the event over would be a gap.
    async fn next(&mut self) -> Option<Event> {
        let Source { access, clock, owners, .. } = &self.source;
        let ended = access.ended(&self.principal, clock);
        let mut ended = std::pin::pin!(ended);
        loop {
            let fed = tokio::select! {
                biased;
                () = &mut ended => {
                    tracing::info!(actor = self.principal.actor, "Event stream ended with its key");
                    return None;
                }
                fed = self.feed.next() => fed?,
            };
            match fed {
                FeedItem::Event(event) => match self.filter.passes(&event, owners).await {
                    Ok(true) => return Some(of_order(&event)),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn Error, "Event stream ended");
                        return None;
                    }
                },
                FeedItem::Reset(reason) => return Some(reset(reason)),
            }
        }
    }
}

/// The feed as a client gets it.
fn events(listener: Listener) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let begun = Event::default().retry(RECONNECT).comment("events follow");
    unfold((Some(begun), listener), async |(begun, mut listener)| {
        let event = match begun {
            Some(begun) => begun,
            None => listener.next().await?,
        };
        Some((Ok(event), (None, listener)))
    })
}

/// An event of an order, as the feed tells it.
#[derive(Serialize, ToSchema)]
pub(super) struct FeedEvent {
    #[schema(value_type = Uuid)]
    order_id: OrderId,
    revision: u64,
    event_id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    data: Value,
    metadata: Value,
    recorded_at: Timestamp,
}

fn of_order(event: &LoggedEvent) -> Event {
    let Position { commit, prepare } = event.position;
    let told = FeedEvent {
        order_id: event.order_id,
        revision: event.revision,
        event_id: event.event_id,
        event_type: event.event_type.clone(),
        data: json_or_text(&event.data),
        metadata: json_or_text(&event.metadata),
        recorded_at: event.recorded_at(),
    };
    let data = json!(told);
    // JSON has no line breaks; a type of another tool's may.
    let name = event.event_type.replace(['\r', '\n', '\0'], " ");
    Event::default().id(format!("{commit}-{prepare}")).event(name).data(data.to_string())
}

/// The last event of a feed that cannot go on. A client that was too slow keeps its place; for one
/// whose place is unknown, it is forgotten.
fn reset(reason: ResetReason) -> Event {
    let event = Event::default().event("reset");
    match reason {
        ResetReason::TooSlow => event.data(json!({"reason": "too_slow"}).to_string()),
        ResetReason::UnknownPosition => {
            event.id("").data(json!({"reason": "unknown_position"}).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn client_that_hears_nothing_gets_heartbeats() {
        let silent = futures::stream::pending();
        let response = sse(silent, Duration::from_millis(1)).into_response();
        let mut body: Body = response.into_body();
        for _ in 0..2 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, ": alive\n\n");
        }
    }

    #[test]
    fn nobody_takes_the_places_of_others() {
        let places = Places::default();
        let take = |actor, count: usize| -> Vec<Place> {
            (0..count).filter_map(|_| places.take(actor, MAX_CLIENTS_OF_KEY)).collect()
        };
        let mut of_one = take("one", MAX_CLIENTS);
        assert_eq!(of_one.len(), MAX_CLIENTS_OF_KEY);
        let of_two = take("two", 100);
        assert_eq!((of_two.len(), take("three", 100).len()), (100, 28), "no more than all");
        of_one.pop();
        assert!(places.take("one", MAX_CLIENTS_OF_KEY).is_some(), "there is one again");
        drop((of_one, of_two));
        assert!(places.lock().is_empty());
    }

    #[test]
    fn place_of_the_last_event_is_two_numbers() {
        let of = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, id.parse().unwrap());
            last_event(&headers)
        };
        assert_eq!(of("7-5").unwrap(), Some(Position { commit: 7, prepare: 5 }));
        assert_eq!(of("").unwrap(), None, "a client whose place was reset");
        for wrong in ["7", "-", "7-", "x-1", "1-1-1", "5-7"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
