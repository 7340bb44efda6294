//! Delivery to gateway to append: retries, dead letters
