variable "name" {
  description = "Name of the event store."
  type        = string
}

variable "project_id" {
  description = "Project in Kurrent Cloud."
  type        = string
}

variable "network_id" {
  description = "Network in Kurrent Cloud, on AWS."
  type        = string
}

variable "topology" {
  description = "Topology: single-node or three-node-multi-zone."
  type        = string

  validation {
    condition     = contains(["single-node", "three-node-multi-zone"], var.topology)
    error_message = "topology must be single-node or three-node-multi-zone."
  }
}

variable "instance_type" {
  description = "Size of each node: F1 and C4 for small loads, M8 to M128 for production."
  type        = string

  validation {
    condition     = contains(["F1", "C4", "M8", "M16", "M32", "M64", "M128"], var.instance_type)
    error_message = "instance_type must be F1, C4, M8, M16, M32, M64 or M128."
  }
}

variable "disk_gib" {
  description = "Size of each node's disk."
  type        = number
}

variable "protected" {
  description = "Whether the event store cannot be destroyed."
  type        = bool
}
