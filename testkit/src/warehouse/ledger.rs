//! The calls of a warehouse and their effects.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use serde_json::json;

use super::Call;
use super::server::format_response;

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) calls: Vec<Call>,
    pub(super) effects: Vec<Effect>,
    /// The final response to each key that has one.
    responses: BTreeMap<String, Vec<u8>>,
}

/// A fulfilment.
pub(super) struct Effect {
    pub(super) key: String,
    pub(super) order_id: OrderId,
}

impl Ledger {
    /// Does the work unless the key has a response, and returns the response.
    pub(super) fn fulfil_once(&mut self, call: &Call) -> Vec<u8> {
        if let Some(response) = self.responses.get(&call.key) {
            return response.clone();
        }
        self.effects.push(Effect { key: call.key.clone(), order_id: call.order_id });
        let reference = format!("wh-{}", self.effects.len());
        self.store_response(
            call,
            format_response(200, &[], &json!({"reference": reference}).to_string()),
        )
    }

    /// Refuses the order unless the key has a response, and returns the response.
    pub(super) fn refuse_once(&mut self, call: &Call, code: &str, reason: &str) -> Vec<u8> {
        if let Some(response) = self.responses.get(&call.key) {
            return response.clone();
        }
        self.store_response(
            call,
            format_response(422, &[], &json!({"code": code, "reason": reason}).to_string()),
        )
    }

    fn store_response(&mut self, call: &Call, response: Vec<u8>) -> Vec<u8> {
        self.responses.insert(call.key.clone(), response.clone());
        response
    }
}
