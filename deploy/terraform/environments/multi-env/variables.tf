# Variables of the contract, which modules/contract describes and validates.

variable "environment" {
  description = "Environment: dev, staging or prod."
  type        = string
}

variable "domain" {
  description = "Host name of the API in prod; other environments have a name under it."
  type        = string
}

variable "fulfillment_success_rate" {
  description = "Share of orders that fulfillment is expected to fulfil."
  type        = number
}

variable "gateway" {
  description = "Gateway that fulfils orders: http or simulated."
  type        = string
  default     = "http"
}

variable "gateway_url" {
  description = "URL that the HTTP gateway posts orders to."
  type        = string
  default     = ""
}

variable "orders_per_month" {
  description = "Expected number of orders in a month."
  type        = number
}

variable "minimum_replicas" {
  description = "Minimum number of API processes and of workers."
  type        = number
  default     = 2
}

# Variables of the providers.

variable "region" {
  description = "AWS region of the database."
  type        = string
  default     = "eu-central-1"
}

variable "pipeline_user" {
  description = "Kubernetes user of this environment's deployments: the name that the cluster gives the workflow's token. Empty: no permissions."
  type        = string
  default     = ""
}

variable "write_secrets" {
  description = "Write the stores' addresses to Kubernetes Secrets. False if the External Secrets operator writes them, as in the overlays of staging and production."
  type        = bool
  default     = false
}

variable "postgres" {
  description = "Managed PostgreSQL for the read model. Null: the read model is elsewhere."
  type = object({
    instance_class = string
    multi_az       = bool
  })
  default = null
}

variable "kurrent_cloud" {
  description = "Managed event store. Null: the event store is elsewhere."
  type = object({
    topology      = string
    instance_type = string
  })
  default = null
}

variable "network" {
  description = "Outputs of environments/global, and the private subnets of the database. Required by postgres and kurrent_cloud."
  type = object({
    subnet_ids               = list(string)
    database_security_groups = list(string)
    kurrent_project_id       = string
    kurrent_network_id       = string
  })
  default = null

  validation {
    condition     = var.network != null || (var.postgres == null && var.kurrent_cloud == null)
    error_message = "network is required by postgres and kurrent_cloud."
  }
}

variable "store_urls" {
  description = "Addresses of the stores by role, with user and password. Required by write_secrets."
  type = object({
    event_store = object({ api = string, worker = string, projector = string })
    read_model  = object({ api = string, projector = string, owner = string })
  })
  default   = null
  sensitive = true

  validation {
    condition     = !var.write_secrets || var.store_urls != null
    error_message = "store_urls is required by write_secrets."
  }
}

variable "console_session_secret" {
  description = "Secret that seals the cookies of the console, at least 32 characters. Required by write_secrets."
  type        = string
  default     = ""
  sensitive   = true

  validation {
    condition     = !var.write_secrets || length(var.console_session_secret) >= 32
    error_message = "console_session_secret must have at least 32 characters if write_secrets is set."
  }
}

variable "event_store_ca" {
  description = "Certificate authority of the event store (PEM), for tlsCaFile in store_urls. Empty: the system's authorities."
  type        = string
  default     = ""
}
