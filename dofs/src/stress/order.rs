//! The orders of the old system's stress scripts.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

const CUSTOMERS: [&str; 5] = [
    "cust-retail-001",
    "cust-wholesale-002",
    "cust-enterprise-003",
    "cust-startup-004",
    "cust-nonprofit-005",
];
const PRODUCTS: [&str; 5] = [
    "prod-widget-001",
    "prod-gadget-002",
    "prod-device-003",
    "prod-service-004",
    "prod-premium-005",
];
const QUANTITIES: [u64; 5] = [1, 2, 5, 10, 25];
/// Lines of an order; at the largest quantity, three stay below the limit of 100.
const MAX_LINES: usize = 3;

/// An order that will be accepted.
pub(super) fn random(random: &mut StdRng) -> Value {
    let n_lines = random.random_range(1..=MAX_LINES);
    let items: Vec<Value> = (0..n_lines)
        .map(|_| json!({"product_id": one_of(random, &PRODUCTS), "quantity": one_of(random, &QUANTITIES)}))
        .collect();
    json!({"customer_id": one_of(random, &CUSTOMERS), "items": items})
}

fn one_of<T: Copy>(random: &mut StdRng, choices: &[T; 5]) -> T {
    choices[random.random_range(0..choices.len())]
}
