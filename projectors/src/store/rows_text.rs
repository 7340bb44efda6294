//! Rows as a text that is the same for the same rows in either database, so that two databases can
//! be compared without taking rows apart.

/// The rows of consecutive orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsText {
    /// Orders that have a row in `orders`.
    pub n_orders: u64,
    text: String,
}

impl RowsText {
    pub(super) fn new((n_orders, text): (i64, String)) -> Self {
        Self { n_orders: n_orders.cast_unsigned(), text }
    }
}

/// What a column holds.
#[derive(Clone, Copy)]
pub(super) enum Holds {
    Id,
    Text,
    Number,
    Time,
    Document,
}

use Holds::{Document, Id, Number, Text, Time};

/// The columns that are not computed from others.
const ORDERS: &[(&str, Holds)] = &[
    ("order_id", Id),
    ("customer_id", Text),
    ("items", Document),
    ("total_quantity", Number),
    ("status", Text),
    ("stage", Text),
    ("attempt", Number),
    ("deliveries", Number),
    ("failure_code", Text),
    ("failure_reason", Text),
    ("reference", Text),
    ("revision", Number),
    ("received_at", Time),
    ("queued_at", Time),
    ("fulfilled_at", Time),
    ("failed_at", Time),
    ("updated_at", Time),
];
const FAILED_ORDERS: &[(&str, Holds)] = &[
    ("order_id", Id),
    ("stage", Text),
    ("code", Text),
    ("reason", Text),
    ("attempt", Number),
    ("deliveries", Number),
    ("failed_at", Time),
    ("\"order\"", Document),
    ("resolved_at", Time),
    ("revision", Number),
];
const ORDER_TENANTS: &[(&str, Holds)] = &[("order_id", Id), ("tenant", Text)];

/// The statement that reads the rows from the id `$1` to the id `$2`. `as_text` writes a column as
/// a text: equal values have equal texts in both databases, different values different ones. But
/// for texts and documents, they have no comma in them.
pub(super) fn statement(as_text: fn(&str, Holds) -> String) -> String {
    let range = "where order_id >= $1 and order_id <= $2";
    let rows = |table: &str, columns: &[(&str, Holds)]| {
        let values: Vec<_> = columns
            .iter()
            .map(|(name, holds)| match holds {
                Id | Number | Time => format!("{}, ','", as_text(name, *holds)),
                // With its length before it, a text cannot be taken for another and its neighbour;
                // without one, it is null.
                Text | Document => {
                    let text = as_text(name, *holds);
                    format!("octet_length({text}), ':', {text}")
                }
            })
            .collect();
        let values = values.join(", ");
        format!(
            "coalesce((select string_agg(line, '') from (select concat({values}) as line \
             from {table} {range} order by order_id) as lines), '')"
        )
    };
    format!(
        "/* rows.text */ select (select count(*) from orders {range}), {} || ';' || {} || ';' || {}",
        rows("orders", ORDERS),
        rows("failed_orders", FAILED_ORDERS),
        rows("order_tenants", ORDER_TENANTS),
    )
}
