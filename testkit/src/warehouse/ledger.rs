//! What a warehouse was asked, and what it did.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use serde_json::json;

use super::{Call, message};

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) calls: Vec<Call>,
    pub(super) effects: Vec<Effect>,
    /// The final answer to each key that has one.
    answers: BTreeMap<String, Vec<u8>>,
}

/// A parcel on its way.
pub(super) struct Effect {
    pub(super) key: String,
    pub(super) order_id: OrderId,
}

impl Ledger {
    /// Does the work unless the key has an answer, and says what that is.
    pub(super) fn work(&mut self, call: &Call) -> Vec<u8> {
        if let Some(answer) = self.answers.get(&call.key) {
            return answer.clone();
        }
        self.effects.push(Effect { key: call.key.clone(), order_id: call.order_id });
        let reference = format!("wh-{}", self.effects.len());
        self.settle(call, message(200, &[], &json!({"reference": reference}).to_string()))
    }

    /// Refuses the order unless the key has an answer, and says what that is.
    pub(super) fn refuse(&mut self, call: &Call, code: &str, reason: &str) -> Vec<u8> {
        if let Some(answer) = self.answers.get(&call.key) {
            return answer.clone();
        }
        self.settle(call, message(422, &[], &json!({"code": code, "reason": reason}).to_string()))
    }

    fn settle(&mut self, call: &Call, answer: Vec<u8>) -> Vec<u8> {
        self.answers.insert(call.key.clone(), answer.clone());
        answer
    }
}
