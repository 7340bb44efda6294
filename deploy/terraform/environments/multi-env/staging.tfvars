environment              = "staging"
domain                   = "orders.example"
fulfillment_success_rate = 0.7
gateway_url              = "https://warehouse.staging.example/orders"
orders_per_month         = 100000

postgres = {
  instance_class = "db.t4g.small"
  multi_az       = false
}

kurrent_cloud = {
  topology      = "single-node"
  instance_type = "F1"
}
