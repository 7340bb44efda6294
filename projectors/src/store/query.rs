//! Statements with their parameters. All but a few texts are the same for both databases.

use std::borrow::Cow;

use domain::ids::OrderId;
use event_log::Position;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::{Page, Place};
use crate::projection::{Column, ColumnType, Kind, Projection, Record, Table, TableRow, Value};

/// The database's own SQL, for the few texts that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// Writes the condition that a table exists.
    pub(super) fn table_exists(self, table: &str) -> String {
        match self {
            Self::Postgres => format!("to_regclass('{table}') is not null"),
            Self::Sqlite => format!("exists (select 1 from sqlite_schema where name = '{table}')"),
        }
    }

    /// Writes a quoted column as a text. Equal values have equal texts in both databases, different
    /// values have different texts. Texts of ids, numbers and times contain no comma.
    pub(super) fn column_as_text(self, column: &str, kind: Kind) -> String {
        match (self, kind) {
            (Self::Postgres, Kind::Id) => format!("upper(encode(uuid_send({column}), 'hex'))"),
            (Self::Sqlite, Kind::Id) => format!("hex({column})"),
            // Microseconds, as SQLite has them.
            (Self::Postgres, Kind::Time) => {
                format!("(extract(epoch from {column}) * 1000000)::bigint")
            }
            (Self::Postgres, Kind::Document) => format!("{column}::text"),
            (Self::Postgres | Self::Sqlite, Kind::Text | Kind::Number)
            | (Self::Sqlite, Kind::Time | Kind::Document) => column.to_owned(),
        }
    }

    /// Writes the condition that `order_id` is one of these, and the text that is its parameter `$n`: one
    /// text, so that the statement is the same for any number of ids.
    pub(super) fn id_is_in(self, n: usize, order_ids: &[OrderId]) -> (String, String) {
        let ids: Vec<_> = order_ids.iter().map(|id| id.0.simple().to_string()).collect();
        match self {
            // As a subselect, the text is converted once. In `= any(..)`, it would be converted for each
            // row that a sequential scan of a small table reads.
            Self::Postgres => (
                format!("order_id in (select unnest(${n}::text::uuid[]))"),
                format!("{{{}}}", ids.join(",")),
            ),
            Self::Sqlite => (
                format!("order_id in (select unhex(value) from json_each(${n}))"),
                // The debug form of hexadecimal strings is JSON.
                format!("{ids:?}"),
            ),
        }
    }

    /// Returns whether this code of a failure says that a lock was not available in time.
    pub(super) fn is_lock_timeout(self, code: &str) -> bool {
        match self {
            Self::Postgres => code == "55P03",
            // The low byte is the primary code, here that of a database that is busy.
            Self::Sqlite => code.parse::<i32>().is_ok_and(|code| code & 0xFF == 5),
        }
    }
}

/// A statement and its parameters.
pub(super) struct Query {
    sql: Cow<'static, str>,
    values: Vec<Value>,
}

/// Makes a [`Query`] from a statement and its parameters, to which the statement refers as `$1`, `$2`
/// and so on.
macro_rules! query {
    ($sql:expr, $($value:expr),+) => {
        $crate::store::query::Query::new($sql)$(.bind($value))+
    };
}

pub(super) use query;

impl Query {
    pub(super) fn new(sql: impl Into<Cow<'static, str>>) -> Self {
        Self { sql: sql.into(), values: Vec::new() }
    }

    /// Selects the columns of a row type from its table. `name` is what the database's own statistics
    /// call the statement.
    pub(super) fn select<R: TableRow>(name: &str) -> Self {
        Self::new(select(name, &R::TABLE))
    }

    /// Adds the next parameter.
    pub(super) fn bind(mut self, value: impl ColumnType) -> Self {
        self.values.push(value.into_value());
        self
    }

    /// Adds the two numbers of a position as the next parameters.
    pub(super) fn bind_position(self, position: Option<Position>) -> Self {
        self.bind(position.map(|position| position.commit))
            .bind(position.map(|position| position.prepare))
    }

    pub(super) fn push(&mut self, sql: &str) {
        self.sql.to_mut().push_str(sql);
    }

    /// Adds a value as a parameter and the reference to it.
    pub(super) fn push_bind(&mut self, value: impl ColumnType) {
        self.values.push(value.into_value());
        let parameter = format!("${}", self.values.len());
        self.push(&parameter);
    }

    /// Adds a condition if there is a value for it. The condition ends with the value and `close`.
    pub(super) fn restrict(
        &mut self,
        condition: &str,
        value: Option<impl ColumnType>,
        close: &str,
    ) {
        if let Some(value) = value {
            self.push(condition);
            self.push_bind(value);
            self.push(close);
        }
    }

    /// Adds the condition that rows come behind a place. `condition` ends with its comparison.
    pub(super) fn restrict_place(&mut self, condition: &str, place: Option<Place>) {
        if let Some(place) = place {
            self.push(condition);
            self.push("(");
            self.push_bind(place.at);
            self.push(", ");
            self.push_bind(place.order_id);
            self.push(")");
        }
    }

    /// Adds the page and the order of a list that is sorted by a time and the id, the newest first.
    pub(super) fn push_page(&mut self, time: &str, page: &Page) {
        self.restrict_place(&format!(" and ({time}, order_id) < "), page.after);
        self.push(&format!(" order by {time} desc, order_id desc limit "));
        self.push_bind(page.limit);
    }

    /// Adds the condition that `order_id` is one of these.
    pub(super) fn restrict_ids(&mut self, dialect: Dialect, order_ids: &[OrderId]) {
        let (condition, ids) = dialect.id_is_in(self.values.len() + 1, order_ids);
        self.push(&format!(" and {condition}"));
        self.values.push(Value::Text(ids));
    }

    /// Adds a row of values as parameters, in brackets.
    pub(super) fn push_record(&mut self, record: Record) {
        let brackets = format!("({})", vec!["?"; record.len()].join(", "));
        self.push(&brackets);
        self.values.extend(record);
    }

    /// Returns the text, for sqlx, and the parameters.
    pub(super) fn into_parts(self) -> (SqlStr, Vec<Value>) {
        let sql = match self.sql {
            Cow::Borrowed(sql) => sql.into_sql_str(),
            // Put together from constants and names of our own; values are parameters.
            Cow::Owned(sql) => AssertSqlSafe(sql).into_sql_str(),
        };
        (sql, self.values)
    }

    #[cfg(test)]
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }
}

/// Returns the statement that selects the columns of a table.
pub(super) fn select(name: &str, table: &Table) -> String {
    let select_column = |column: &Column| match column.kind {
        // PostgreSQL has a type of its own for JSON.
        Kind::Document => format!("cast({} as text)", quoted(column)),
        Kind::Id | Kind::Text | Kind::Number | Kind::Time => quoted(column),
    };
    let columns: Vec<_> = table.columns.iter().map(select_column).collect();
    format!("/* {name} */ select {} from {}", columns.join(", "), table.name)
}

/// The column's name in SQL: `order` is a word of SQL itself.
pub(super) fn quoted(column: &Column) -> String {
    format!("\"{}\"", column.name)
}

/// Returns the columns of a table, separated by commas.
pub(super) fn column_list(table: &Table) -> String {
    table.columns.iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// Returns the columns of a table's primary key, separated by commas.
pub(super) fn key_list(table: &Table) -> String {
    table.key_columns().iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// Returns the names of a projection's tables as SQL strings, separated by commas.
pub(super) fn quoted_table_names(projection: &Projection) -> String {
    let names = projection.tables.iter().map(|table| format!("'{}'", table.name));
    names.collect::<Vec<_>>().join(", ")
}

/// Returns the end of an insert statement: a row is replaced by a newer one only.
pub(super) fn on_conflict(table: &Table) -> String {
    if !table.has_revision() {
        return " on conflict do nothing".to_owned();
    }
    let assignments = table.columns.iter().skip(1).map(quoted);
    let assignments: Vec<_> =
        assignments.map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        " on conflict (order_id) do update set {} where excluded.revision > {}.revision",
        assignments.join(", "),
        table.name
    )
}
