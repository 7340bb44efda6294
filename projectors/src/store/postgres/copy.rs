//! Rows by COPY, in PostgreSQL's binary form of it.

use domain::ids::OrderId;
use domain::order::Order;
use sqlx::PgConnection;

use super::value::{PgTime, escaped};
use super::write::{failed_order_record, order_record};
use crate::orders::row::FailedOrder;
use crate::store::StoreError;

/// What such a copy begins with: a signature, no flags, and a header of no further length.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A row of so many columns ends it.
const END: i16 = -1;
/// The length of a value that is null.
const NULL: i32 = -1;
/// PostgreSQL counts microseconds from the year 2000 on; until then it is so many from 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

pub(super) async fn orders(
    connection: &mut PgConnection,
    orders: &[&Order],
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    for order in orders {
        let it = order_record(order);
        rows.begin(17);
        rows.bytes(it.order_id.as_bytes());
        rows.text(&it.customer_id);
        rows.text(&it.items);
        rows.number(it.total_quantity);
        rows.text(&it.status);
        rows.maybe_text(it.stage.as_deref());
        rows.number(it.attempt);
        rows.number(it.deliveries);
        rows.maybe_text(it.failure_code.as_deref());
        rows.maybe_text(it.failure_reason.as_deref());
        rows.maybe_text(it.reference.as_deref());
        rows.number(it.revision);
        rows.maybe_time(it.received_at);
        rows.maybe_time(it.queued_at);
        rows.maybe_time(it.fulfilled_at);
        rows.maybe_time(it.failed_at);
        rows.maybe_time(Some(it.updated_at));
    }
    let copy = "/* orders.copy */ copy orders (order_id, customer_id, items, total_quantity, status, \
        stage, attempt, deliveries, failure_code, failure_reason, reference, revision, received_at, \
        queued_at, fulfilled_at, failed_at, updated_at) from stdin with (format binary)";
    rows.copy(connection, copy).await
}

pub(super) async fn failed_orders(
    connection: &mut PgConnection,
    failed_orders: &[&FailedOrder],
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    for failed in failed_orders {
        let it = failed_order_record(failed);
        rows.begin(10);
        rows.bytes(it.order_id.as_bytes());
        rows.text(&it.stage);
        rows.text(&it.code);
        rows.text(&it.reason);
        rows.number(it.attempt);
        rows.number(it.deliveries);
        rows.maybe_time(Some(it.failed_at));
        rows.text(&it.order);
        rows.maybe_time(it.resolved_at);
        rows.number(it.revision);
    }
    let copy = "/* failed_orders.copy */ copy failed_orders (order_id, stage, code, reason, attempt, \
        deliveries, failed_at, \"order\", resolved_at, revision) from stdin with (format binary)";
    rows.copy(connection, copy).await
}

pub(super) async fn tenants(
    connection: &mut PgConnection,
    tenants: &[(OrderId, &str)],
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    for (order_id, tenant) in tenants {
        rows.begin(2);
        rows.bytes(order_id.0.as_bytes());
        rows.text(&escaped((*tenant).to_owned()));
    }
    let copy = "/* order_tenants.copy */ copy order_tenants (order_id, tenant) from stdin \
        with (format binary)";
    rows.copy(connection, copy).await
}

/// Rows in the form in which they are sent.
#[derive(Default)]
struct Rows(Vec<u8>);

impl Rows {
    /// Begins a row of so many values, which follow.
    fn begin(&mut self, n_columns: i16) {
        if self.0.is_empty() {
            self.0.extend(HEADER);
        }
        self.0.extend(n_columns.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn maybe_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    fn number(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    fn maybe_time(&mut self, time: Option<PgTime>) {
        match time {
            Some(time) => self.number(time.timestamp_micros() - EPOCH_MICROS),
            None => self.null(),
        }
    }

    fn null(&mut self) {
        self.0.extend(NULL.to_be_bytes());
    }

    #[expect(
        clippy::expect_used,
        reason = "what an order holds came in a request, of some megabytes"
    )]
    fn bytes(&mut self, value: &[u8]) {
        let length = i32::try_from(value.len()).expect("a value is shorter than 2 GiB");
        self.0.extend(length.to_be_bytes());
        self.0.extend(value);
    }

    /// Sends them, if there are any.
    async fn copy(mut self, connection: &mut PgConnection, copy: &str) -> Result<(), StoreError> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.extend(END.to_be_bytes());
        let mut copying = connection.copy_in_raw(copy).await?;
        copying.send(self.0).await?;
        copying.finish().await?;
        Ok(())
    }
}
