//! The body that asks for a redrive of many.

use std::collections::HashSet;

use domain::ids::OrderId;
use domain::operations::RedriveFilter;
use domain::order::Stage;
use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use service_kit::problem::Problem;
use service_kit::time::{Age, MAX_AGE_SECONDS};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::operator::{Said, refused};

/// The most orders that can be named one by one.
const MAX_ORDER_IDS: usize = 1_000;
/// The highest rate that can be asked for; more is no limit at all.
const MAX_RATE: u32 = 100_000;

// A misspelt restriction, or `dry_run`, would redrive what was not meant.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedrivesRequest {
    /// Who acts, where nobody has to show a key.
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    actor: Option<String>,
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    reason: Option<String>,
    #[serde(default, deserialize_with = "object")]
    filter: Option<Filter>,
    #[schema(minimum = 1, maximum = 100_000)]
    rate_per_second: Option<u32>,
    /// Change nothing, and say what would happen to which order, and why.
    dry_run: Option<bool>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RedrivesFilter)]
struct Filter {
    /// `validation` cannot be redriven; dead letters are meant unless something else is said.
    stage: Option<Stage>,
    code: Option<String>,
    /// E.g. `15m`, `36h` or `2d`, or a number of seconds.
    #[schema(schema_with = older_than)]
    older_than: Option<Age>,
    #[schema(value_type = Option<Vec<uuid::Uuid>>, min_items = 1, max_items = 1000)]
    order_ids: Option<Vec<OrderId>>,
    customer_id: Option<String>,
}

/// One type with either form: a description of two types would be one more name.
fn older_than() -> Object {
    let types = [Type::String, Type::Integer, Type::Null];
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(types.to_vec()))
        .description(Some("E.g. `15m`, `36h` or `2d`, or a number of seconds"))
        .pattern(Some("^([0-9]{1,4}[smhd]?|[0-9]{1,3}w)$"))
        .minimum(Some(0))
        .maximum(Some(MAX_AGE_SECONDS))
        .build()
}

/// A filter is an object: a list would be read as one whose members stand in their order, and one of
/// nothing but nulls would restrict nothing.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Filter>, D::Error> {
    let members = Option::<Map<String, Value>>::deserialize(deserializer)?;
    let filter = members.map(|it| Filter::deserialize(Value::Object(it)));
    filter.transpose().map_err(D::Error::custom)
}

impl RedrivesRequest {
    /// What is meant, as of now: dead letters, unless it names orders or another stage; and nothing
    /// that fails from now on, so that what a redrive does not mend is not redriven by it again.
    pub(super) fn filter(&self, now: Timestamp) -> Result<RedriveFilter, Problem> {
        let filter = self.filter.as_ref();
        let mut order_ids = filter.and_then(|it| it.order_ids.clone());
        if order_ids.as_ref().is_some_and(|it| it.is_empty() || it.len() > MAX_ORDER_IDS) {
            let rule = format!("must have 1 to {MAX_ORDER_IDS} entries");
            return Err(refused("filter/order_ids", &rule));
        }
        // Each order counts once, however often it is named.
        let mut named = HashSet::new();
        if let Some(ids) = &mut order_ids {
            ids.retain(|id| named.insert(*id));
        }
        let stage = filter.and_then(|it| it.stage);
        if stage == Some(Stage::Validation) {
            let rule = "cannot be `validation`: orders that broke a business rule are placed anew";
            return Err(refused("filter/stage", rule));
        }
        let is_general = order_ids.is_none();
        Ok(RedriveFilter {
            stage: stage.or(is_general.then_some(Stage::DeadLetter)),
            code: filter.and_then(|it| it.code.clone()),
            failed_before: Some(
                filter.and_then(|it| it.older_than).map_or(now, |it| it.before(now)),
            ),
            order_ids,
            customer_id: filter.and_then(|it| it.customer_id.clone()),
        })
    }

    /// How many orders per second at most.
    pub(super) fn rate_per_second(&self) -> Result<Option<u32>, Problem> {
        match self.rate_per_second {
            Some(rate) if !(1..=MAX_RATE).contains(&rate) => {
                Err(refused("rate_per_second", &format!("must be 1 to {MAX_RATE}")))
            }
            rate => Ok(rate),
        }
    }

    /// Who, and why.
    pub(super) fn said(self) -> Said {
        Said::new(self.actor, self.reason)
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(body: Value) -> Option<RedriveFilter> {
        let request: RedrivesRequest = serde_json::from_value(body).ok()?;
        request.filter(Timestamp::from_second(1_000).unwrap()).ok()
    }

    #[test]
    fn dead_letters_that_there_are_now_are_meant_unless_something_else_is_said() {
        let all = filter(json!({})).unwrap();
        assert_eq!(all.stage, Some(Stage::DeadLetter));
        assert_eq!(all.failed_before, Timestamp::from_second(1_000).ok());
        let old = filter(json!({"filter": {"older_than": "15m", "stage": "fulfillment"}})).unwrap();
        assert_eq!(old.stage, Some(Stage::Fulfillment));
        assert_eq!(old.failed_before, Timestamp::from_second(100).ok());
        let id = "00000000-0000-0000-0000-000000000001";
        let named = filter(json!({"filter": {"order_ids": [id, id]}})).unwrap();
        assert_eq!(named.stage, None);
        assert_eq!(named.order_ids.map(|ids| ids.len()), Some(1), "named twice, redriven once");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            json!({"filter": {"stage": "validation"}}),
            json!({"filter": {"stage": "parked"}}),
            json!({"filter": {"older_then": "15m"}}),
            json!({"dryRun": true}),
            json!({"code": "x"}),
            json!({"filter": {"older_than": "soon"}}),
            json!({"filter": [null, null, null, null, null]}),
            json!({"filter": {"order_ids": []}}),
            json!({"filter": {"order_ids": ["7"]}}),
        ] {
            assert_eq!(filter(wrong.clone()), None, "{wrong}");
        }
    }
}
