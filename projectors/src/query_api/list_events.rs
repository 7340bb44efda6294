//! `GET /v1/events`: events of orders, newest first.

use std::time::Duration;

use api_types::{EventPage, FeedEvent, PageQuery, StreamEventsQuery};
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use event_log::{EventPlace, EventsPortion, LoggedEvent, Position};
use serde::{Deserialize, Serialize};
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;
use tokio::time::Instant;

use super::event_filter::EventFilter;
use super::event_stream::to_feed_event;
use super::ownership::Tenant;
use super::pagination::Listing;
use super::{Queries, QueryState, log_failed};

/// Maximum number of events that are read at once.
const PORTION_EVENTS: usize = 500;
/// Number of events that are read for a page before the page ends, full or not.
const MAX_READ: usize = 5_000;
/// Time after which a page ends, full or not. The owner of each order may have to be read.
const MAX_READ_TIME: Duration = Duration::from_secs(1);
/// Size of the events of a page before the page ends, in bytes as stored.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The place of an event behind which a page begins. The revision counts if the list is of one order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct EventKey {
    commit: u64,
    prepare: u64,
    revision: u64,
}

impl From<EventPlace> for EventKey {
    fn from(EventPlace { position, revision }: EventPlace) -> Self {
        Self { commit: position.commit, prepare: position.prepare, revision }
    }
}

impl From<EventKey> for EventPlace {
    fn from(EventKey { commit, prepare, revision }: EventKey) -> Self {
        Self { position: Position { commit, prepare }, revision }
    }
}

/// List the events of orders, newest first
///
/// A key of one tenant gets the events of that tenant's orders. A request reads a limited number of events,
/// so a page may have fewer than `limit` events, or none, although older ones match: only a `next_cursor` of
/// null ends the list. With `order_id`, only the events of that order are read.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "listEvents", tag = "events",
    security(("api_key" = ["audit:read"])),
    params(StreamEventsQuery, PageQuery),
    responses(
        (status = 200, description = "A page of events", body = EventPage, headers(
            ("Link" = String, description = "Path of the next page, with `rel=next`"),
        )),
    ),
)]
pub(super) async fn list_events(
    State(QueryState { queries, readers, .. }): State<QueryState>,
    Tenant(tenant): Tenant,
    QueryParameters(filter): QueryParameters<StreamEventsQuery>,
    QueryParameters(page): QueryParameters<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let listing = Listing::<_, EventKey>::new("/v1/events", filter, &page)?;
    let filter = EventFilter::new(listing.filter.clone(), tenant)?;
    // A page is in memory, as a page of a history is.
    let _admitted = readers.admit().await?;
    let mut scan = EventScan::new(&queries, &filter, listing.limit());
    let last = scan.read_page(listing.after.map(Into::into)).await?;
    let (headers, next_cursor) = listing.finish_page_at(last.map(Into::into));
    Ok((headers, Json(EventPage { items: scan.items, next_cursor })))
}

/// A page while it is read.
struct EventScan<'a> {
    queries: &'a Queries,
    filter: &'a EventFilter,
    limit: usize,
    items: Vec<FeedEvent>,
    n_bytes: usize,
}

impl<'a> EventScan<'a> {
    fn new(queries: &'a Queries, filter: &'a EventFilter, limit: usize) -> Self {
        Self { queries, filter, limit, items: Vec::new(), n_bytes: 0 }
    }

    /// Reads a page, and returns the place behind which the next one begins; `None` if there is none.
    async fn read_page(
        &mut self,
        mut after: Option<EventPlace>,
    ) -> Result<Option<EventPlace>, Problem> {
        let deadline = Instant::now() + MAX_READ_TIME;
        let mut n_read = 0;
        // Without a filter, this is most often the whole page.
        let mut max_events = self.limit;
        loop {
            let portion = self.read_portion(after, max_events).await?;
            max_events = PORTION_EVENTS;
            n_read += portion.n_read;
            for event in &portion.events {
                if self.filter.matches(event, &self.queries.owners).await.map_err(log_failed)? {
                    if self.is_full() {
                        return Ok(after);
                    }
                    self.push(event);
                }
                after = Some(event.place());
            }
            after = portion.next;
            // A full page does not look for the next event that matches, which may be far away.
            let is_over = self.is_full() || n_read >= MAX_READ || Instant::now() >= deadline;
            if after.is_none() || is_over {
                return Ok(after);
            }
        }
    }

    async fn read_portion(
        &self,
        after: Option<EventPlace>,
        max_events: usize,
    ) -> Result<EventsPortion, Problem> {
        let Queries { log, owners, .. } = self.queries;
        let portion = match self.filter.order_id {
            Some(order_id) => log.read_order_events_before(order_id, after, max_events).await,
            None => log.read_events_before(after, max_events).await,
        };
        let portion = portion.map_err(log_failed)?;
        // The first event of an order names the owner, and comes after the other events here: the stream is
        // read only for orders that began before this portion.
        for event in portion.events.iter().filter(|event| event.revision == 0) {
            owners.owner_of_event(event).await.map_err(log_failed)?;
        }
        Ok(portion)
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.limit || self.n_bytes >= MAX_PAGE_BYTES
    }

    fn push(&mut self, event: &LoggedEvent) {
        self.n_bytes += event.data.len() + event.metadata.len();
        self.items.push(to_feed_event(event));
    }
}
