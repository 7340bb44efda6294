variable "region" {
  description = "AWS region of the event stores."
  type        = string
  default     = "eu-central-1"
}

variable "event_store_cidr" {
  description = "Private network of the event stores. It must not overlap with the cluster's."
  type        = string
  default     = "172.21.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.event_store_cidr))
    error_message = "event_store_cidr must be an IPv4 network, for example 172.21.0.0/16."
  }
}

variable "cluster_network" {
  description = "AWS account, VPC and network of the cluster, to peer with the event stores'. Null: no peering."
  type = object({
    account_id = string
    vpc_id     = string
    cidr       = string
  })
  default = null
}
