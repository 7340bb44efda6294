//! A projection: a name, tables, and a pure fold from events to changes of their rows.
//!
//! The runner, rebuild, verify, repair, the sets of tables, the lease and the checkpoint work for any
//! projection: see [`Projection`]. Rows belong to orders, and an order's rows depend on nothing but the
//! events of its stream.

mod statistics;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::ids::OrderId;
use domain::order::Recorded;
use uuid::Uuid;

pub use statistics::{Completions, CountChange, Minute, MinuteDifference, Statistics};
pub use table::{Column, ColumnType, Kind, Record, Row, Table, TableRow, Value};
pub(crate) use table::{read_column, row};

/// What the projectors need to know of a projection.
#[derive(Debug)]
pub struct Projection {
    /// Its key in `projection_checkpoints`. It never changes.
    pub name: &'static str,
    /// The version of the fold. Tables that another version has built have to be rebuilt.
    pub version: u32,
    /// Its tables. The first one has a row for every order of the projection, with a `revision`, and a
    /// computed column `listed_at` by which the newest orders are found.
    pub tables: &'static [Table],
    /// Whether orders are counted by state, and events by minute.
    pub has_statistics: bool,
    pub apply: Apply,
}

/// Folds events into the rows of their orders and returns what changes. An event that a row reflects
/// already changes nothing.
///
/// # Errors
/// If a row cannot be read.
pub type Apply =
    fn(BTreeMap<OrderId, OrderRecords>, &Events<'_>) -> Result<RowChanges, UnreadableRow>;

/// The rows of one order: a sorted list per table of the projection, in the order of the tables.
pub type OrderRecords = Vec<Vec<Record>>;

/// A batch of events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Events<'a> {
    pub recorded: &'a [Recorded],
    pub deletions: &'a [Deletion],
    /// The tenants of orders whose first event is in the batch.
    pub tenants: &'a [(OrderId, String)],
    /// The operators' commands that events of the batch record.
    pub operator_commands: &'a [OperatorCommand],
}

/// An operator's command on one order, and the event that records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorCommand {
    pub order_id: OrderId,
    /// Revision of the event.
    pub revision: u64,
    pub event_id: Uuid,
    pub actor: String,
}

/// One step of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The next event of an order, and the order's tenant if it is the order's first event.
    Event(&'a Recorded, Option<&'a str>),
    /// The stream of the order was deleted.
    Deleted(OrderId),
}

impl<'a> Events<'a> {
    /// Returns the events and the deletions in the order of the log.
    pub fn steps(self) -> impl Iterator<Item = Step<'a>> {
        let mut deletions = self.deletions.iter().peekable();
        let tenants: HashMap<_, _> =
            self.tenants.iter().map(|(order_id, tenant)| (*order_id, tenant.as_str())).collect();
        let mut recorded = self.recorded.iter().enumerate().peekable();
        std::iter::from_fn(move || {
            let n_before = recorded.peek().map_or(usize::MAX, |(index, _)| *index);
            if let Some(deletion) = deletions.next_if(|next| next.n_events_before <= n_before) {
                return Some(Step::Deleted(deletion.order_id));
            }
            let (_, recorded) = recorded.next()?;
            // Only the first event names the tenant. So the rows do not depend on how the log is cut
            // into batches, even if a first event cannot be read.
            let tenant = tenants.get(&recorded.event.order_id()).copied();
            Some(Step::Event(recorded, tenant.filter(|_| recorded.revision == 0)))
        })
    }
}

/// The deletion of an order's stream, in a batch of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    pub order_id: OrderId,
    /// Number of events of the batch that come before the deletion.
    pub n_events_before: usize,
}

/// The rows that a batch of events changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowChanges {
    /// Orders whose rows are deleted, before other rows are written.
    pub deleted: BTreeSet<OrderId>,
    /// The rows to write, for each table of the projection.
    pub written: Vec<Vec<Record>>,
    /// Orders that are known to have no rows yet: none have to be read.
    pub begun: HashSet<OrderId>,
    pub statistics: Statistics,
}

impl Projection {
    /// Returns the table that has a row for every order.
    pub(crate) fn main_table(&self) -> &'static Table {
        // Every projection has a table: see `tables`.
        &self.tables[0]
    }

    /// Returns the rows of an order that `changes` writes.
    pub(crate) fn written_rows(&self, changes: RowChanges, order_id: OrderId) -> OrderRecords {
        let mut written = changes.written.into_iter();
        let of_order = |mut records: Vec<Record>| {
            records.retain(|record| order_of(record) == Some(order_id));
            records.sort();
            records
        };
        // `written` may have fewer lists than there are tables.
        self.tables.iter().map(|_table| written.next().map_or_else(Vec::new, of_order)).collect()
    }
}

/// A row holds a value that no release writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row of {of} cannot be read: {reason}")]
pub struct UnreadableRow {
    /// The order or the table of the row.
    pub of: String,
    pub reason: String,
}

/// Returns the order that a row belongs to.
pub(crate) fn order_of(record: &Record) -> Option<OrderId> {
    match record.first() {
        Some(Value::Id(id)) => Some(OrderId(*id)),
        _ => None,
    }
}

/// Reads a row.
///
/// # Errors
/// If a column holds a value that no release writes.
pub(crate) fn read_row<R: Row>(record: Record) -> Result<R, UnreadableRow> {
    let order_id = order_of(&record);
    R::from_record(record).map_err(|reason| UnreadableRow {
        of: order_id.map_or_else(|| "the read model".to_owned(), |id| format!("order {id}")),
        reason,
    })
}

/// Takes the row of a table with one row per order out of an order's rows.
pub(crate) fn take_row<R: TableRow>(
    rows: &mut OrderRecords,
    index: usize,
) -> Result<Option<R>, UnreadableRow> {
    rows.get_mut(index).and_then(Vec::pop).map(read_row).transpose()
}
