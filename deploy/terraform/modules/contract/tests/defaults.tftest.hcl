# Derived values.

variables {
  environment              = "staging"
  domain                   = "orders.example"
  fulfillment_success_rate = 0.7
  gateway                  = "http"
  gateway_url              = "https://warehouse.example/orders"
  orders_per_month         = 10000000
}

run "names_follow_the_environment" {
  assert {
    condition     = output.program_environment == "staging" && output.namespace == "dofs-staging"
    error_message = "unexpected names: ${output.program_environment}, ${output.namespace}"
  }

  assert {
    condition     = output.api_url == "https://staging.orders.example"
    error_message = "unexpected URL: ${output.api_url}"
  }
}

run "prod_is_production_of_the_program" {
  variables {
    environment = "prod"
  }

  assert {
    condition     = output.settings.DOFS_ENV == "production" && output.namespace == "dofs-production"
    error_message = "unexpected names: ${output.settings.DOFS_ENV}, ${output.namespace}"
  }

  assert {
    condition     = output.api_url == "https://orders.example"
    error_message = "unexpected URL: ${output.api_url}"
  }
}

run "sizes_are_those_of_the_sizing_page" {
  # 10 million orders a month, peak factor 20, 12 months on disk: 77 orders per second, 120 million orders.
  assert {
    condition = (
      output.sizes.cores == 1
      && output.sizes.api_replicas == 2
      && output.sizes.worker_replicas == 2
      && output.sizes.projector_replicas == 2
      && output.sizes.process_memory_mib == 512
      && output.sizes.event_store_disk_gib == 450
      && output.sizes.read_model_disk_gib == 270
    )
    error_message = "unexpected sizes: ${jsonencode(output.sizes)}"
  }
}

run "processes_grow_with_load_and_latency" {
  variables {
    orders_per_month   = 100000000
    gateway_latency_ms = 1000
  }

  # 772 orders per second at peak; a worker with 32 calls of one second handles 32.
  assert {
    condition     = output.sizes.worker_replicas == 25 && output.sizes.cores == 2
    error_message = "unexpected sizes: ${jsonencode(output.sizes)}"
  }
}

run "small_environment_keeps_minimum_sizes" {
  variables {
    environment      = "dev"
    orders_per_month = 1000
    minimum_replicas = 1
  }

  assert {
    condition = (
      output.sizes.api_replicas == 1
      && output.sizes.worker_replicas == 1
      && output.sizes.event_store_disk_gib == 16
      && output.sizes.read_model_disk_gib == 20
    )
    error_message = "unexpected sizes: ${jsonencode(output.sizes)}"
  }
}

run "settings_have_the_same_values_in_every_form" {
  assert {
    condition     = output.settings.DOFS__FULFILLMENT__SUCCESS_RATE == "0.7"
    error_message = "unexpected rate: ${output.settings.DOFS__FULFILLMENT__SUCCESS_RATE}"
  }

  assert {
    condition     = yamldecode(output.config_map).data == output.settings
    error_message = "the ConfigMap differs from the settings: ${output.config_map}"
  }

  assert {
    condition = { for line in split("\n", trimspace(output.environment_file)) :
      split("=", line)[0] => split("=", line)[1]
    } == output.settings
    error_message = "the file differs from the settings: ${output.environment_file}"
  }
}

run "thresholds_follow_rate_and_load" {
  variables {
    fulfillment_success_rate = 0.1
  }

  assert {
    condition     = output.alert_thresholds.success_rate_minimum == 0 && output.alert_thresholds.orders_per_second_maximum == 78
    error_message = "unexpected thresholds: ${jsonencode(output.alert_thresholds)}"
  }
}
