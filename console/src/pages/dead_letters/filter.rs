//! The filter of failures and the selection of orders, as addresses and forms have them.

use api_types::{Age, FailureFilter, FailureStage};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::form::absent_if_empty;

/// Maximum number of orders that a visitor can select.
pub(super) const MAX_SELECTED: usize = 200;

const LIST: &str = "/console/dead-letters";

/// Restricts the failures of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LetterFilter {
    #[serde(default = "dead_letter", skip_serializing_if = "is_dead_letter")]
    pub(super) stage: FailureStage,
    #[serde(
        default,
        deserialize_with = "absent_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) code: Option<String>,
    #[serde(
        default,
        deserialize_with = "absent_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) customer: Option<String>,
    #[serde(
        default,
        deserialize_with = "absent_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) older_than: Option<Age>,
}

impl Default for LetterFilter {
    fn default() -> Self {
        Self { stage: dead_letter(), code: None, customer: None, older_than: None }
    }
}

fn dead_letter() -> FailureStage {
    FailureStage::DeadLetter
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_dead_letter(stage: &FailureStage) -> bool {
    *stage == FailureStage::DeadLetter
}

impl LetterFilter {
    /// Returns whether the filter restricts more than the stage.
    pub(super) fn is_restricted(&self) -> bool {
        self.code.is_some() || self.customer.is_some() || self.older_than.is_some()
    }

    /// Returns the filter of the API.
    pub(super) fn to_api(&self) -> FailureFilter {
        FailureFilter {
            stage: Some(self.stage),
            code: self.code.clone(),
            customer_id: self.customer.clone(),
            older_than: self.older_than,
            order_ids: None,
        }
    }

    /// Returns the address of the list with this filter.
    pub(super) fn list_address(&self) -> String {
        address(LIST, self)
    }

    /// Returns the address of the page that redrives all failures that match.
    pub(super) fn redrive_address(&self) -> String {
        address("/console/dead-letters/redrive", self)
    }

    /// Returns the fields that carry the filter to the page of a form.
    pub(super) fn hidden_fields(&self) -> Markup {
        let older_than = self.older_than.map(|age| age.to_string());
        let fields = [
            ("stage", Some(stage_parameter(self.stage))),
            ("code", self.code.as_deref()),
            ("customer", self.customer.as_deref()),
            ("older_than", older_than.as_deref()),
        ];
        html! {
            @for (name, value) in fields {
                @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
            }
        }
    }

    /// Returns the filter in words.
    pub(super) fn describe(&self) -> Markup {
        html! {
            (stage_title(self.stage))
            @if let Some(code) = &self.code { " with code " code { (code) } }
            @if let Some(customer) = &self.customer { " of customer " code { (customer) } }
            @if let Some(age) = &self.older_than { " older than " (age) }
        }
    }
}

/// Parameters of the list beside the filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListQuery {
    /// Also list failures that were resolved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) resolved: bool,
    #[serde(
        default,
        deserialize_with = "absent_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) cursor: Option<String>,
    /// Time of the newest row that the visitor sees. Only live regions have it.
    #[serde(
        default,
        deserialize_with = "absent_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) since: Option<Timestamp>,
}

impl ListQuery {
    /// Returns the address of the list with a filter and these parameters.
    pub(super) fn list_address(&self, filter: &LetterFilter) -> String {
        #[derive(Serialize)]
        struct Parameters<'a> {
            #[serde(flatten)]
            filter: &'a LetterFilter,
            #[serde(flatten)]
            query: &'a ListQuery,
        }
        address(LIST, &Parameters { filter, query: self })
    }
}

/// Orders that the visitor has selected in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Selection {
    /// Whether the visitor chose the selected orders. Otherwise an empty selection would be all orders that
    /// match.
    #[serde(default)]
    selected: bool,
    #[serde(default)]
    order_id: Vec<Uuid>,
}

impl Selection {
    /// Returns a selection of some orders.
    pub(super) fn of(order_id: Vec<Uuid>) -> Self {
        Self { selected: true, order_id }
    }

    /// Returns the selected orders; `None` if the visitor chose all that match.
    ///
    /// # Errors
    /// If no order is selected, or too many are.
    pub(super) fn order_ids(&self) -> Result<Option<&[Uuid]>, String> {
        match self.order_id.as_slice() {
            [] if self.selected => Err("No order is selected.".to_owned()),
            [] => Ok(None),
            ids if ids.len() > MAX_SELECTED => {
                Err(format!("At most {MAX_SELECTED} orders can be selected."))
            }
            ids => Ok(Some(ids)),
        }
    }

    /// Returns the address of a page with this selection. `filter` leads back to the list.
    pub(super) fn address(&self, page: &str, filter: &LetterFilter) -> String {
        #[derive(Serialize)]
        struct Parameters<'a> {
            #[serde(flatten)]
            filter: &'a LetterFilter,
            #[serde(flatten)]
            selection: &'a Selection,
        }
        address(page, &Parameters { filter, selection: self })
    }
}

/// Returns an address with parameters.
pub(super) fn address(path: &str, parameters: &(impl Serialize + ?Sized)) -> String {
    // Texts, numbers and lists of them always serialise.
    let query = serde_html_form::to_string(parameters).unwrap_or_default();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Returns the name of a stage in addresses.
pub(super) fn stage_parameter(stage: FailureStage) -> &'static str {
    match stage {
        FailureStage::DeadLetter => "dead_letter",
        FailureStage::Fulfillment => "fulfillment",
        FailureStage::Validation => "validation",
    }
}

/// Returns the name of the failures of a stage.
pub(super) fn stage_title(stage: FailureStage) -> &'static str {
    match stage {
        FailureStage::DeadLetter => "Dead letters",
        FailureStage::Fulfillment => "Fulfillment refusals",
        FailureStage::Validation => "Validation failures",
    }
}

/// Returns the links to the stages. A code belongs to one stage, so the other stages do not keep it.
pub(super) fn stage_choice(filter: &LetterFilter) -> Markup {
    let stages = [FailureStage::DeadLetter, FailureStage::Fulfillment, FailureStage::Validation];
    html! {
        p.choice {
            @for stage in stages {
                @let of_stage = LetterFilter { stage, code: None, ..filter.clone() };
                a href=(of_stage.list_address())
                    aria-current=[(stage == filter.stage).then_some("true")] { (stage_title(stage)) }
            }
        }
    }
}

/// Returns the form of the filter. `codes` are proposals.
pub(super) fn filter_form(filter: &LetterFilter, query: &ListQuery, codes: Vec<&str>) -> Markup {
    let older_than = filter.older_than.map(|age| age.to_string());
    html! {
        form.filters action=(LIST) {
            input type="hidden" name="stage" value=(stage_parameter(filter.stage));
            div {
                label for="code" { "Code" }
                input #code name="code" value=[&filter.code] list="codes" maxlength="256" autocomplete="off";
                datalist #codes { @for code in codes { option value=(code) {} } }
            }
            div {
                label for="customer" { "Customer" }
                input #customer name="customer" value=[&filter.customer] maxlength="256" autocomplete="off";
            }
            div {
                label for="older_than" { "Older than" }
                input #older_than name="older_than" value=[older_than] placeholder="15m, 36h, 2d" size="10"
                    pattern="[0-9]+[smhdw]?" title="A number and s, m, h, d or w, for example 15m" autocomplete="off";
            }
            label {
                input type="checkbox" name="resolved" value="true" checked[query.resolved];
                " Resolved too"
            }
            button { "Filter" }
            @if filter.is_restricted() || query.resolved {
                a href=(LetterFilter { stage: filter.stage, ..LetterFilter::default() }.list_address()) {
                    "Clear"
                }
            }
        }
    }
}
