//! The calls of a warehouse and their effects.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use serde_json::json;

use super::Call;
use crate::http_server::format_response;

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) calls: Vec<Call>,
    pub(super) effects: Vec<Effect>,
    /// The final response to each key that has one.
    responses: BTreeMap<String, Vec<u8>>,
}

pub(super) struct Effect {
    pub(super) key: String,
    pub(super) order_id: OrderId,
}

impl Ledger {
    /// Does the work unless the key has a response, and returns the response.
    pub(super) fn fulfil_once(&mut self, call: &Call) -> Vec<u8> {
        let effects = &mut self.effects;
        let fulfil = || {
            effects.push(Effect { key: call.key.clone(), order_id: call.order_id });
            let body = json!({"reference": format!("wh-{}", effects.len())});
            format_response(200, &[], &body.to_string())
        };
        self.responses.entry(call.key.clone()).or_insert_with(fulfil).clone()
    }

    /// Refuses the order unless the key has a response, and returns the response.
    pub(super) fn refuse_once(&mut self, call: &Call, code: &str, reason: &str) -> Vec<u8> {
        let body = json!({"code": code, "reason": reason}).to_string();
        let refuse = || format_response(422, &[], &body);
        self.responses.entry(call.key.clone()).or_insert_with(refuse).clone()
    }
}
