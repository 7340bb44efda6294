# Values that are refused. Each run has one invalid value.

variables {
  environment              = "staging"
  domain                   = "orders.example"
  fulfillment_success_rate = 0.7
  gateway_url              = "https://warehouse.example/orders"
  orders_per_month         = 100000
}

run "unknown_environment_is_refused" {
  command = plan

  variables {
    environment = "production"
  }

  expect_failures = [var.environment]
}

run "domain_without_dot_is_refused" {
  command = plan

  variables {
    domain = "orders"
  }

  expect_failures = [var.domain]
}

run "domain_in_upper_case_is_refused" {
  command = plan

  variables {
    domain = "Orders.example"
  }

  expect_failures = [var.domain]
}

run "success_rate_in_percent_is_refused" {
  command = plan

  variables {
    fulfillment_success_rate = 90
  }

  expect_failures = [var.fulfillment_success_rate]
}

run "negative_success_rate_is_refused" {
  command = plan

  variables {
    fulfillment_success_rate = -0.1
  }

  expect_failures = [var.fulfillment_success_rate]
}

run "unknown_gateway_is_refused" {
  command = plan

  variables {
    gateway     = "smtp"
    gateway_url = ""
  }

  expect_failures = [var.gateway]
}

run "simulated_gateway_in_prod_is_refused" {
  command = plan

  variables {
    environment = "prod"
    gateway     = "simulated"
    gateway_url = ""
  }

  expect_failures = [var.gateway]
}

run "http_gateway_without_url_is_refused" {
  command = plan

  variables {
    gateway_url = ""
  }

  expect_failures = [var.gateway_url]
}

run "simulated_gateway_with_url_is_refused" {
  command = plan

  variables {
    gateway = "simulated"
  }

  expect_failures = [var.gateway_url]
}

run "password_in_url_is_refused" {
  command = plan

  variables {
    gateway_url = "https://user:password@warehouse.example/orders"
  }

  expect_failures = [var.gateway_url]
}

run "plain_http_in_prod_is_refused" {
  command = plan

  variables {
    environment = "prod"
    gateway_url = "http://warehouse.example/orders"
  }

  expect_failures = [var.gateway_url]
}

run "latency_above_timeout_is_refused" {
  command = plan

  variables {
    gateway_latency_ms = 6000
  }

  expect_failures = [var.gateway_latency_ms]
}

run "fraction_of_a_millisecond_is_refused" {
  command = plan

  variables {
    gateway_timeout_ms = 5000.5
  }

  expect_failures = [var.gateway_timeout_ms]
}

run "message_timeout_shorter_than_a_delivery_is_refused" {
  command = plan

  variables {
    message_timeout_ms = 15000
  }

  expect_failures = [var.message_timeout_ms]
}

run "worker_without_calls_is_refused" {
  command = plan

  variables {
    worker_concurrency = 0
  }

  expect_failures = [var.worker_concurrency]
}

run "negative_rate_limit_is_refused" {
  command = plan

  variables {
    rate_per_second = -1
  }

  expect_failures = [var.rate_per_second]
}

run "status_that_is_not_documented_is_refused" {
  command = plan

  variables {
    accepted_status = 201
  }

  expect_failures = [var.accepted_status]
}

run "no_orders_is_refused" {
  command = plan

  variables {
    orders_per_month = 0
  }

  expect_failures = [var.orders_per_month]
}

run "peak_below_the_mean_is_refused" {
  command = plan

  variables {
    peak_factor = 0.5
  }

  expect_failures = [var.peak_factor]
}

run "disk_for_no_time_is_refused" {
  command = plan

  variables {
    disk_months = 0
  }

  expect_failures = [var.disk_months]
}

run "no_processes_is_refused" {
  command = plan

  variables {
    minimum_replicas = 0
  }

  expect_failures = [var.minimum_replicas]
}

run "one_process_in_prod_is_refused" {
  command = plan

  variables {
    environment      = "prod"
    minimum_replicas = 1
  }

  expect_failures = [var.minimum_replicas]
}
