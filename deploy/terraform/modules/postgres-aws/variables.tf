variable "name" {
  description = "Name of the instance."
  type        = string
}

variable "instance_class" {
  description = "Class of the instance, for example db.m7g.large (2 cores, 8 GiB)."
  type        = string
}

variable "multi_az" {
  description = "Whether a standby in another zone takes over after a failure."
  type        = bool
}

variable "disk_gib" {
  description = "Size of the disk. It grows to four times this size when it is almost full."
  type        = number
}

variable "subnet_ids" {
  description = "Private subnets in at least two zones."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must have subnets in at least two zones."
  }
}

variable "security_group_ids" {
  description = "Security groups that allow port 5432 from the cluster only."
  type        = list(string)

  validation {
    condition     = length(var.security_group_ids) >= 1
    error_message = "security_group_ids must not be empty: the default group of a VPC may allow too much."
  }
}

variable "deletion_protection" {
  description = "Whether the instance cannot be destroyed."
  type        = bool
}
