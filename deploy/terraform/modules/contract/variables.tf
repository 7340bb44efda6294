variable "environment" {
  description = "Environment: dev, staging or prod."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "environment must be dev, staging or prod."
  }
}

variable "domain" {
  description = "Host name of the API in prod. The API of another environment is `<environment>.<domain>`."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.domain))
    error_message = "domain must be a lower-case DNS name with at least two labels, for example orders.example."
  }
}

# Fulfillment ----------------------------------------------------------------------------------------

variable "fulfillment_success_rate" {
  description = "Share of orders that fulfillment is expected to fulfil. The simulated gateway fulfils this share."
  type        = number

  validation {
    condition     = var.fulfillment_success_rate >= 0 && var.fulfillment_success_rate <= 1
    error_message = "fulfillment_success_rate must be between 0 and 1."
  }
}

variable "gateway" {
  description = "Gateway that fulfils orders: `http` posts them to gateway_url, `simulated` draws random outcomes."
  type        = string
  default     = "http"

  validation {
    condition     = contains(["http", "simulated"], var.gateway)
    error_message = "gateway must be http or simulated."
  }

  validation {
    condition     = var.gateway != "simulated" || var.environment != "prod"
    error_message = "prod must not use the simulated gateway, because order outcomes would be random."
  }
}

variable "gateway_url" {
  description = "URL that the HTTP gateway posts orders to, without user and password."
  type        = string
  default     = ""

  validation {
    condition     = (var.gateway == "http") == (var.gateway_url != "")
    error_message = "gateway_url is required by the gateway http, and must be empty for the simulated gateway."
  }

  validation {
    condition     = var.gateway_url == "" || can(regex("^https?://[^@/ ]+(/[^ ]*)?$", var.gateway_url))
    error_message = "gateway_url must be an http or https URL without user and password."
  }

  validation {
    condition     = var.environment != "prod" || startswith(var.gateway_url, "https://")
    error_message = "gateway_url must use https in prod."
  }
}

variable "gateway_latency_ms" {
  description = "Typical duration of a gateway call, from which the number of workers follows."
  type        = number
  default     = 200

  validation {
    condition     = var.gateway_latency_ms > 0 && var.gateway_latency_ms <= var.gateway_timeout_ms
    error_message = "gateway_latency_ms must be positive, and at most gateway_timeout_ms."
  }
}

variable "gateway_timeout_ms" {
  description = "Maximum duration of a gateway call."
  type        = number
  default     = 5000

  validation {
    condition     = var.gateway_timeout_ms > 0 && floor(var.gateway_timeout_ms) == var.gateway_timeout_ms
    error_message = "gateway_timeout_ms must be a positive whole number."
  }
}

variable "message_timeout_ms" {
  description = "Time after which the event store delivers an unanswered message again."
  type        = number
  default     = 30000

  validation {
    # 10,000 is the default of fulfillment.backoff_max_ms.
    condition     = var.message_timeout_ms > var.gateway_timeout_ms + 10000
    error_message = "message_timeout_ms must be longer than gateway_timeout_ms and the longest wait before a retry (10000) together."
  }
}

variable "worker_concurrency" {
  description = "Maximum number of concurrent gateway calls of one worker."
  type        = number
  default     = 32

  validation {
    condition     = var.worker_concurrency >= 1 && floor(var.worker_concurrency) == var.worker_concurrency
    error_message = "worker_concurrency must be a positive whole number."
  }
}

# API ------------------------------------------------------------------------------------------------

variable "rate_per_second" {
  description = "Requests per second of one API key. 0: unlimited."
  type        = number
  default     = 100

  validation {
    condition     = var.rate_per_second >= 0 && floor(var.rate_per_second) == var.rate_per_second
    error_message = "rate_per_second must be a whole number, or 0 for no limit."
  }
}

variable "accepted_status" {
  description = "HTTP status of an accepted order: 202, or 200 for clients of the AWS system."
  type        = number
  default     = 202

  validation {
    condition     = contains([200, 202], var.accepted_status)
    error_message = "accepted_status must be 200 or 202."
  }
}

# Size -----------------------------------------------------------------------------------------------

variable "orders_per_month" {
  description = "Expected number of orders in a month."
  type        = number

  validation {
    condition     = var.orders_per_month > 0
    error_message = "orders_per_month must be positive."
  }
}

variable "peak_factor" {
  description = "Peak rate of orders as a multiple of the month's mean rate."
  type        = number
  default     = 20

  validation {
    condition     = var.peak_factor >= 1
    error_message = "peak_factor must be at least 1."
  }
}

variable "disk_months" {
  description = "Months of orders that the disks hold before they must grow. Events are kept for ever."
  type        = number
  default     = 12

  validation {
    condition     = var.disk_months >= 1
    error_message = "disk_months must be at least 1."
  }
}

variable "minimum_replicas" {
  description = "Minimum number of API processes and of workers. 2: one machine or one update may stop one of them."
  type        = number
  default     = 2

  validation {
    condition     = var.minimum_replicas >= 1 && floor(var.minimum_replicas) == var.minimum_replicas
    error_message = "minimum_replicas must be a positive whole number."
  }

  validation {
    condition     = var.environment != "prod" || var.minimum_replicas >= 2
    error_message = "minimum_replicas must be at least 2 in prod."
  }
}
