//! Random orders from the customers and products of the predecessor's stress scripts.

use api_types::{OrderItem, PlaceOrderRequest};
use rand::RngExt;
use rand::rngs::StdRng;

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
/// Maximum number of order lines: three of the largest quantity stay below the limit of 100 per order.
const MAX_LINES: usize = 3;

/// Returns an order that breaks no business rule.
pub(super) fn generate_order(random: &mut StdRng) -> PlaceOrderRequest {
    let n_lines = random.random_range(1..=MAX_LINES);
    let items = (0..n_lines)
        .map(|_| OrderItem {
            product_id: pick(random, &PRODUCTS).to_owned(),
            quantity: pick(random, &QUANTITIES),
        })
        .collect();
    PlaceOrderRequest { customer_id: pick(random, &CUSTOMERS).to_owned(), items }
}

fn pick<T: Copy>(random: &mut StdRng, choices: &[T; 5]) -> T {
    // In range: the index is drawn from the array's length.
    choices[random.random_range(0..choices.len())]
}
