//! Arguments of `dofs order`.

use clap::{Args, Subcommand};
use domain::order::Status;
use uuid::Uuid;

use super::Api;

#[derive(Debug, Args)]
pub(crate) struct Order {
    #[command(subcommand)]
    pub(crate) command: OrderCommand,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// Place an order
    Place {
        /// Id of the customer
        #[arg(long, value_name = "ID")]
        customer: String,
        /// Product and quantity of an order line; may be repeated
        #[arg(long = "item", value_name = "PRODUCT:QUANTITY", required = true, value_parser = parse_item)]
        items: Vec<(String, u64)>,
    },
    /// Show an order
    Get {
        /// Id of the order
        id: Uuid,
    },
    /// Print the events of an order as they are recorded, until it is fulfilled or has failed
    Watch {
        /// Id of the order
        id: Uuid,
    },
    /// List orders, newest first
    List {
        /// Only orders with this status: processing, fulfilled or failed
        #[arg(long, value_parser = parse_status)]
        status: Option<Status>,
        /// Only orders of this customer
        #[arg(long, value_name = "ID")]
        customer: Option<String>,
        /// Maximum number of orders
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
}

/// Parses `PRODUCT:QUANTITY`. The last colon separates: product ids may contain colons.
pub(super) fn parse_item(text: &str) -> Result<(String, u64), String> {
    let parsed = text.rsplit_once(':').and_then(|(product, quantity)| {
        Some((product.to_owned(), quantity.parse().ok().filter(|quantity| *quantity > 0)?))
    });
    parsed.ok_or_else(|| "use PRODUCT:QUANTITY with a quantity of at least 1".to_owned())
}

fn parse_status(text: &str) -> Result<Status, String> {
    Status::from_name(&text.to_uppercase())
        .ok_or_else(|| "use processing, fulfilled or failed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_is_product_colon_positive_quantity() {
        assert_eq!(parse_item("prod:a:2"), Ok(("prod:a".to_owned(), 2)));
        for invalid in ["prod", "prod:0", "prod:-1", "prod:x"] {
            assert!(parse_item(invalid).is_err(), "{invalid}");
        }
    }
}
