locals {
  # Names that the program, the kustomize overlays and the workflows use.
  program_environment = var.environment == "prod" ? "production" : var.environment
  namespace           = "dofs-${local.program_environment}"
  api_host            = var.environment == "prod" ? var.domain : "${var.environment}.${var.domain}"

  labels = {
    "app.kubernetes.io/part-of"    = "dofs"
    "app.kubernetes.io/managed-by" = "terraform"
    "dofs/environment"             = local.program_environment
  }

  # Measured values of docs/sizing.md: one core handles 1,400 orders per second, of which a third is planned
  # for; sizes on disk are per million orders.
  orders_per_core_and_second = 1400 / 3
  event_store_gib            = 3.0
  read_model_gib             = 0.9
  process_memory_mib         = 512
  # Free space that keeps a volume below the alert on full disks.
  disk_reserve = 1.25

  mean_orders_per_second = var.orders_per_month / (30 * 86400)
  peak_orders_per_second = local.mean_orders_per_second * var.peak_factor
  orders_on_disk         = var.orders_per_month * var.disk_months / 1000000

  # A worker's throughput is limited by its concurrent calls: at 200 ms, 32 calls are 160 orders per second.
  worker_orders_per_second = var.worker_concurrency * 1000 / var.gateway_latency_ms

  sizes = {
    cores              = max(1, ceil(local.peak_orders_per_second / local.orders_per_core_and_second))
    process_memory_mib = local.process_memory_mib
    api_replicas       = max(var.minimum_replicas, ceil(local.peak_orders_per_second / local.orders_per_core_and_second))
    worker_replicas    = max(var.minimum_replicas, ceil(local.peak_orders_per_second / local.worker_orders_per_second))
    # One writes, the other one takes over.
    projector_replicas = 2
    # On each node of the event store.
    event_store_disk_gib = max(16, ceil(local.orders_on_disk * local.event_store_gib * local.disk_reserve))
    # A rebuild needs the size of the tables once more.
    read_model_disk_gib = max(20, ceil(local.orders_on_disk * local.read_model_gib * 2 * local.disk_reserve))
  }

  # Settings of config/default.toml for all roles. Addresses of stores and gateway are secrets of single roles.
  settings = {
    DOFS_ENV                              = local.program_environment
    DOFS__API__ACCEPTED_STATUS            = tostring(var.accepted_status)
    DOFS__API__RATE_PER_SECOND            = tostring(var.rate_per_second)
    DOFS__AUTH__MODE                      = "api_key"
    DOFS__FULFILLMENT__CONCURRENCY        = tostring(var.worker_concurrency)
    DOFS__FULFILLMENT__GATEWAY            = var.gateway
    DOFS__FULFILLMENT__MESSAGE_TIMEOUT_MS = tostring(var.message_timeout_ms)
    DOFS__FULFILLMENT__SUCCESS_RATE       = tostring(var.fulfillment_success_rate)
    DOFS__FULFILLMENT__TIMEOUT_MS         = tostring(var.gateway_timeout_ms)
  }

  # Of deploy/observability/prometheus/rules, and of this environment's load. The rules have no alert on the
  # success rate of an HTTP gateway.
  alert_thresholds = {
    stuck_processing_seconds  = 600
    projection_lag_seconds    = 30
    success_rate_minimum      = max(0, var.fulfillment_success_rate - 0.15)
    orders_per_second_maximum = ceil(local.peak_orders_per_second)
  }
}
