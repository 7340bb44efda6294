//! Tables and their rows. Each column is written once, as a field of the row's struct: the mapping of
//! rows, the column list, the upsert, COPY and the comparison text of both databases follow from it.

use domain::ids::OrderId;
use domain::order::{Item, Stage, Status};
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

/// What a column holds, whatever the database calls its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Id,
    Text,
    /// The 64 bits of a whole number.
    Number,
    /// Microseconds since 1970.
    Time,
    /// JSON, kept byte by byte as it was written.
    Document,
}

/// The value of one column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null(Kind),
    Id(Uuid),
    Text(String),
    Number(i64),
    Time(i64),
    Document(String),
}

impl Value {
    /// Returns the value as JSON, for reports.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Null(_) => Json::Null,
            Self::Id(id) => id.to_string().into(),
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => number.cast_unsigned().into(),
            Self::Time(micros) => Timestamp::from_microsecond(*micros)
                .map_or_else(|_| (*micros).into(), |time| time.to_string().into()),
            Self::Document(json) => {
                serde_json::from_str(json).unwrap_or_else(|_| json.as_str().into())
            }
        }
    }
}

/// The values of a row, in the order of its columns.
pub type Record = Vec<Value>;

/// A column that is not computed from others.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

/// A table of a projection. Its first column is `order_id`.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [Column],
    /// Number of leading columns that are the primary key. With 1, an order has at most one row. With more,
    /// an order has any number of rows, and the fold only adds rows.
    pub n_key_columns: usize,
}

impl Table {
    /// Returns whether a row names the revision of the event that last changed it. Such a row is
    /// replaced by a newer one only; a row without a revision is never replaced.
    pub(crate) fn has_revision(&self) -> bool {
        self.columns.iter().any(|column| column.name == "revision")
    }

    /// Returns whether the fold only adds rows, so that it does not read the rows of an order.
    pub(crate) fn is_only_added_to(&self) -> bool {
        self.n_key_columns > 1
    }

    /// Returns the columns of the primary key.
    pub(crate) fn key_columns(&self) -> &'static [Column] {
        &self.columns[..self.n_key_columns]
    }

    /// Returns the row as a JSON object, for reports.
    pub(crate) fn record_to_json(&self, record: &Record) -> Map<String, Json> {
        let names = self.columns.iter().map(|column| column.name.to_owned());
        names.zip(record.iter().map(Value::to_json)).collect()
    }
}

/// A struct whose fields are the columns of a statement or of a table.
pub trait Row: Sized {
    const COLUMNS: &'static [Column];

    /// # Errors
    /// The name of the column that cannot be read, and why.
    fn from_record(record: Record) -> Result<Self, String>;

    fn into_record(self) -> Record;
}

/// The row of a table.
pub trait TableRow: Row {
    const TABLE: Table;
}

/// A type that a column can be read as.
pub trait ColumnType: Sized {
    const KIND: Kind;

    fn into_value(self) -> Value;

    /// # Errors
    /// Why the value cannot be read.
    fn from_value(value: Value) -> Result<Self, String>;
}

/// Declares a struct and maps its fields to columns of the same names. With `in "table"`, the struct
/// is the row of that table. With `keyed N`, the first N fields are the table's key.
macro_rules! row {
    (@key) => { 1 };
    (@key $n_key_columns:literal) => { $n_key_columns };
    (
        $(#[$meta:meta])*
        $visibility:vis struct $Row:ident $(in $table:literal $(keyed $n_key_columns:literal)?)? {
            $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty,)+
        }
    ) => {
        $(#[$meta])*
        $visibility struct $Row {
            $($(#[$field_meta])* $field_visibility $field: $type,)+
        }

        impl $crate::projection::Row for $Row {
            const COLUMNS: &'static [$crate::projection::Column] = &[$(
                $crate::projection::Column {
                    name: stringify!($field),
                    kind: <$type as $crate::projection::ColumnType>::KIND,
                },
            )+];

            fn from_record(record: $crate::projection::Record) -> Result<Self, String> {
                let mut values = record.into_iter();
                Ok(Self {
                    $($field: $crate::projection::read_column(stringify!($field), &mut values)?,)+
                })
            }

            fn into_record(self) -> $crate::projection::Record {
                vec![$($crate::projection::ColumnType::into_value(self.$field),)+]
            }
        }

        $(impl $crate::projection::TableRow for $Row {
            const TABLE: $crate::projection::Table = $crate::projection::Table {
                name: $table,
                columns: <Self as $crate::projection::Row>::COLUMNS,
                n_key_columns: row!(@key $($n_key_columns)?),
            };
        })?
    };
}

pub(crate) use row;

/// Reads the next value as the column of this name.
pub(crate) fn read_column<C: ColumnType>(
    name: &str,
    values: &mut impl Iterator<Item = Value>,
) -> Result<C, String> {
    let value = values.next().ok_or_else(|| format!("column `{name}` is missing"))?;
    C::from_value(value).map_err(|reason| format!("column `{name}`: {reason}"))
}

/// Says of a value that its column holds another kind.
fn wrong_kind(value: &Value) -> String {
    format!("unexpected value {}", value.to_json())
}

/// Implements [`ColumnType`] for types that hold the same as a [`Value`].
macro_rules! column_types {
    ($($type:ty, $kind:ident: |$owned:ident| $into:expr, |$stored:ident| $from:expr;)+) => {$(
        impl ColumnType for $type {
            const KIND: Kind = Kind::$kind;

            fn into_value(self) -> Value {
                let $owned = self;
                Value::$kind($into)
            }

            fn from_value(value: Value) -> Result<Self, String> {
                match value {
                    Value::$kind($stored) => $from,
                    other => Err(wrong_kind(&other)),
                }
            }
        }
    )+};
}

column_types! {
    Uuid, Id: |id| id, |id| Ok(id);
    OrderId, Id: |id| id.0, |id| Ok(Self(id));
    String, Text: |text| text, |text| Ok(text);
    Status, Text: |status| status.as_str().to_owned(), |name| Self::from_name(&name).ok_or(name);
    Stage, Text: |stage| stage.as_str().to_owned(), |name| Self::from_name(&name).ok_or(name);
    i64, Number: |number| number, |number| Ok(number);
    u64, Number: |number| number.cast_signed(), |number| Ok(number.cast_unsigned());
    u32, Number: |number| number.into(),
        |number| Self::try_from(number).map_err(|_| number.to_string());
    Timestamp, Time: |time| time.as_microsecond(),
        |micros| Self::from_microsecond(micros).map_err(|_| "time out of range".to_owned());
    Vec<Item>, Document: |items| json(&items), |text| parse_json(&text);
    Map<String, Json>, Document: |fields| json(&fields), |text| parse_json(&text);
}

impl<C: ColumnType> ColumnType for Option<C> {
    const KIND: Kind = C::KIND;

    fn into_value(self) -> Value {
        self.map_or(Value::Null(C::KIND), C::into_value)
    }

    fn from_value(value: Value) -> Result<Self, String> {
        if let Value::Null(_) = value { Ok(None) } else { C::from_value(value).map(Some) }
    }
}

#[expect(clippy::expect_used, reason = "strings and numbers under string keys are always JSON")]
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("items and fields of an order are JSON")
}

fn parse_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
