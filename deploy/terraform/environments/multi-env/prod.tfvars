environment              = "prod"
domain                   = "orders.example"
fulfillment_success_rate = 0.9
gateway_url              = "https://warehouse.example/orders"
orders_per_month         = 10000000

postgres = {
  instance_class = "db.m7g.large"
  multi_az       = true
}

kurrent_cloud = {
  topology      = "three-node-multi-zone"
  instance_type = "M8"
}
