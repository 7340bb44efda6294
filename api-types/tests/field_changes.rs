//! Changes between the states of an order.

use api_types::{FieldChange, OrderState};
use domain::order::evolve;
use proptest::prelude::*;
use serde_json::{Map, Value};
use testkit::histories::any_history;
use testkit::spec::recorded;

proptest! {
    #[test]
    fn changes_of_all_events_add_up_to_the_final_state(history in any_history()) {
        let (mut fields, mut order, mut before) = (Map::new(), None, None);
        for event in recorded(history) {
            let next = evolve(order, &event);
            let state = OrderState::from(&next);
            for change in FieldChange::between(before.as_ref(), &state) {
                let known = fields.insert(change.field, change.after).unwrap_or_default();
                prop_assert_eq!(known, change.before);
            }
            (order, before) = (Some(next), Some(state));
        }
        // A field that was null in every state never changed.
        if let Value::Object(state) = serde_json::to_value(before).unwrap() {
            for (field, value) in state {
                prop_assert_eq!(fields.remove(&field).unwrap_or_default(), value, "{}", field);
            }
        }
    }
}
