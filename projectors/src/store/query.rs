//! Statements with their parameters, the same for both databases, and what a database has to do for
//! them.

use std::borrow::Cow;

use domain::ids::OrderId;
use event_log::Position;
use futures::future::BoxFuture;
use sqlx::error::BoxDynError;
use sqlx::{AssertSqlSafe, Database, SqlSafeStr, SqlStr};

use super::{Page, Place, StoreError};
use crate::projection::{
    Column, ColumnType, Kind, Projection, Record, Row, Table, TableRow, Value, read_row,
};

/// How a database takes parameters, runs statements and writes columns in SQL.
pub(super) trait Dialect: Database {
    /// Adds a parameter to those of a statement.
    fn bind(arguments: &mut Self::Arguments, value: Value) -> Result<(), BoxDynError>;

    /// Runs a statement and returns the number of rows that it changed.
    fn execute(
        connection: &mut Self::Connection,
        sql: SqlStr,
        arguments: Self::Arguments,
    ) -> BoxFuture<'_, sqlx::Result<u64>>;

    /// Runs a statement and returns its rows, whose columns are of these kinds.
    fn fetch<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        arguments: Self::Arguments,
        columns: &'static [Column],
    ) -> BoxFuture<'c, sqlx::Result<Vec<Record>>>;

    /// Runs statements without parameters, unprepared.
    fn execute_raw(
        connection: &mut Self::Connection,
        sql: SqlStr,
    ) -> BoxFuture<'_, sqlx::Result<()>>;

    /// Writes a quoted column as a text. Equal values have equal texts in both databases, different
    /// values have different texts. Texts of ids, numbers and times contain no comma.
    fn column_as_text(column: &str, kind: Kind) -> String;

    /// Writes the condition that `order_id` is one of the ids in the parameter `parameter`, which is
    /// what [`Dialect::list_ids`] returns.
    fn id_is_in(parameter: usize) -> String;

    /// Writes ids as one text, so that the statement is the same for any number of ids.
    fn list_ids(order_ids: &[OrderId]) -> String;

    /// Reads the rows of some orders from a table.
    fn fetch_by_ids<'c>(
        connection: &'c mut Self::Connection,
        table: &'static Table,
        order_ids: &'c [OrderId],
    ) -> BoxFuture<'c, Result<Vec<Record>, StoreError>>;
}

/// Writes the methods of [`Dialect`] that run statements. They have the same text for each database, and
/// sqlx has no trait by which one text could serve all.
macro_rules! run_statements {
    ($Connection:ty, $Arguments:ty, $Row:ty) => {
        fn execute(
            connection: &mut $Connection,
            sql: SqlStr,
            arguments: $Arguments,
        ) -> BoxFuture<'_, sqlx::Result<u64>> {
            Box::pin(async move {
                Ok(sqlx::query_with(sql, arguments).execute(connection).await?.rows_affected())
            })
        }

        fn fetch<'c>(
            connection: &'c mut $Connection,
            sql: SqlStr,
            arguments: $Arguments,
            columns: &'static [Column],
        ) -> BoxFuture<'c, sqlx::Result<Vec<Record>>> {
            let read = |row: $Row| {
                let kinds = columns.iter().enumerate();
                kinds.map(|(index, column)| read_column(&row, index, column.kind)).collect()
            };
            Box::pin(sqlx::query_with(sql, arguments).try_map(read).fetch_all(connection))
        }

        fn execute_raw(
            connection: &mut $Connection,
            sql: SqlStr,
        ) -> BoxFuture<'_, sqlx::Result<()>> {
            Box::pin(async move { sqlx::raw_sql(sql).execute(connection).await.map(drop) })
        }
    };
}

pub(super) use run_statements;

/// Runs statements that are put together from names of our own.
pub(super) async fn execute_script<D: Dialect>(
    connection: &mut D::Connection,
    sql: String,
) -> sqlx::Result<()> {
    D::execute_raw(connection, AssertSqlSafe(sql).into_sql_str()).await
}

/// A statement and its parameters.
pub(super) struct Query {
    sql: Cow<'static, str>,
    values: Vec<Value>,
}

impl Query {
    pub(super) fn new(sql: impl Into<Cow<'static, str>>) -> Self {
        Self { sql: sql.into(), values: Vec::new() }
    }

    /// Selects the columns of a row type from its table. `name` is what the database's own statistics
    /// call the statement.
    pub(super) fn select<R: TableRow>(name: &str) -> Self {
        Self::new(select(name, &R::TABLE))
    }

    /// Adds the next parameter, to which the statement refers as `$n`.
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
    pub(super) fn restrict_ids<D: Dialect>(&mut self, order_ids: &[OrderId]) {
        self.values.push(Value::Text(D::list_ids(order_ids)));
        let condition = format!(" and {}", D::id_is_in(self.values.len()));
        self.push(&condition);
    }

    /// Adds a row of values as parameters, in brackets.
    pub(super) fn push_record(&mut self, record: Record) {
        let brackets = format!("({})", vec!["?"; record.len()].join(", "));
        self.push(&brackets);
        self.values.extend(record);
    }

    /// Runs the statement and returns the number of rows that it changed.
    pub(super) async fn execute<D: Dialect>(
        self,
        connection: &mut D::Connection,
    ) -> sqlx::Result<u64> {
        let (sql, arguments) = self.into_parts::<D>()?;
        D::execute(connection, sql, arguments).await
    }

    pub(super) async fn fetch<D: Dialect, R: Row>(
        self,
        connection: &mut D::Connection,
    ) -> Result<Vec<R>, StoreError> {
        let records = self.fetch_records::<D>(connection, R::COLUMNS).await?;
        Ok(records.into_iter().map(read_row).collect::<Result<_, _>>()?)
    }

    /// Returns the first row, if there is any.
    pub(super) async fn fetch_first<D: Dialect, R: Row>(
        self,
        connection: &mut D::Connection,
    ) -> Result<Option<R>, StoreError> {
        let mut records = self.fetch_records::<D>(connection, R::COLUMNS).await?;
        Ok(records.drain(..).next().map(read_row).transpose()?)
    }

    /// Returns the only column of every row.
    pub(super) async fn fetch_values<D: Dialect, C: ColumnType>(
        self,
        connection: &mut D::Connection,
    ) -> Result<Vec<C>, StoreError> {
        let records = self
            .fetch_records::<D>(connection, const { &[Column { name: "value", kind: C::KIND }] })
            .await?;
        records.into_iter().flatten().map(read_value).collect()
    }

    /// Returns the only column of the first row, if there is any.
    pub(super) async fn fetch_value<D: Dialect, C: ColumnType>(
        self,
        connection: &mut D::Connection,
    ) -> Result<Option<C>, StoreError> {
        Ok(self.fetch_values::<D, C>(connection).await?.into_iter().next())
    }

    pub(super) async fn fetch_records<D: Dialect>(
        self,
        connection: &mut D::Connection,
        columns: &'static [Column],
    ) -> sqlx::Result<Vec<Record>> {
        let (sql, arguments) = self.into_parts::<D>()?;
        D::fetch(connection, sql, arguments, columns).await
    }

    fn into_parts<D: Dialect>(self) -> sqlx::Result<(SqlStr, D::Arguments)> {
        let mut arguments = D::Arguments::default();
        for value in self.values {
            D::bind(&mut arguments, value).map_err(sqlx::Error::Encode)?;
        }
        let sql = match self.sql {
            Cow::Borrowed(sql) => sql.into_sql_str(),
            // Put together from constants and names of our own; values are parameters.
            Cow::Owned(sql) => AssertSqlSafe(sql).into_sql_str(),
        };
        Ok((sql, arguments))
    }

    #[cfg(test)]
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }
}

fn read_value<C: ColumnType>(value: Value) -> Result<C, StoreError> {
    C::from_value(value).map_err(|reason| StoreError::Row { of: "the read model".into(), reason })
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
