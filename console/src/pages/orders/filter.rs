//! The filter of the list: fields of the address, and the query of the API.

use api_types::OrderStatus;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use crate::form::{parse_time, time_field};

const STATUSES: [OrderStatus; 3] =
    [OrderStatus::Processing, OrderStatus::Fulfilled, OrderStatus::Failed];

/// The filter as the visitor typed it. Empty fields restrict nothing.
#[derive(Debug, Default, Deserialize)]
pub(super) struct FilterFields {
    #[serde(default)]
    status: String,
    #[serde(default)]
    customer: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
}

/// The filter, read from its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) status: Option<OrderStatus>,
    pub(super) customer_id: Option<String>,
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
}

/// The query of the API.
#[derive(Debug, Default, Serialize)]
pub(super) struct Listing<'a> {
    pub(super) status: Option<OrderStatus>,
    pub(super) customer_id: Option<&'a str>,
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<&'a str>,
}

impl Filter {
    /// Reads the fields.
    ///
    /// # Errors
    /// The name and the value of the first invalid field.
    pub(super) fn parse(fields: &FilterFields) -> Result<Self, String> {
        let status = parse_field("status", &fields.status, |text| {
            STATUSES.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text))
        })?;
        let customer_id = Some(fields.customer.trim()).filter(|id| !id.is_empty());
        let customer_id = customer_id.map(str::to_owned);
        let from = parse_field("from", &fields.from, parse_time)?;
        let to = parse_field("to", &fields.to, parse_time)?;
        Ok(Self { status, customer_id, from, to })
    }

    /// Returns the query of the first page.
    pub(super) fn listing(&self) -> Listing<'_> {
        let Self { status, customer_id, from, to } = self;
        let (status, from, to) = (*status, *from, *to);
        let customer_id = customer_id.as_deref();
        Listing { status, customer_id, from, to, limit: None, cursor: None }
    }

    /// Returns the address of a page of the list.
    pub(super) fn address(&self, cursor: Option<&str>) -> String {
        let fields = [
            ("status", self.status.map(|status| status.as_str().to_owned())),
            ("customer", self.customer_id.clone()),
            ("from", self.from.map(|from| from.to_string())),
            ("to", self.to.map(|to| to.to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ];
        // Texts always serialise.
        let query = serde_html_form::to_string(fields).unwrap_or_default();
        let separator = if query.is_empty() { "" } else { "?" };
        format!("/console/orders{separator}{query}")
    }
}

fn parse_field<T>(
    name: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).ok_or_else(|| format!("Invalid {name} `{text}`."))
}

/// Returns the form of the filter.
pub(super) fn form(fields: &FilterFields) -> Markup {
    html! {
        form.filters action="/console/orders" {
            div {
                label for="filter-status" { "Status" }
                select #filter-status name="status" {
                    option value="" { "All" }
                    @for status in STATUSES {
                        option value=(status.as_str())
                            selected[status.as_str().eq_ignore_ascii_case(&fields.status)] {
                            (status.as_str())
                        }
                    }
                }
            }
            div {
                label for="filter-customer" { "Customer id" }
                input #filter-customer name="customer" value=(fields.customer) autocomplete="off"
                    spellcheck="false";
            }
            (time_field("from", "Received from (UTC)", &fields.from))
            (time_field("to", "Received before (UTC)", &fields.to))
            button type="submit" { "Filter" }
            a.button href="/console/orders" { "Clear" }
        }
    }
}
