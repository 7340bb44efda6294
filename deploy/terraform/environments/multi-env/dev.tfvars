environment              = "dev"
domain                   = "orders.example"
fulfillment_success_rate = 0.7
gateway                  = "simulated"
orders_per_month         = 1000
minimum_replicas         = 1
