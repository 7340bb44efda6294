variable "namespace" {
  description = "Namespace of the environment, as in its kustomize overlay."
  type        = string
}

variable "labels" {
  description = "Labels of every resource."
  type        = map(string)
}

variable "pipeline_user" {
  description = "User of the environment's deployments. Empty: no permissions."
  type        = string
}

variable "pipeline_writes_secrets" {
  description = "Whether the overlay contains Secrets, so that a deployment must write them."
  type        = bool
  default     = false
}

variable "secrets" {
  description = "Secrets by name, each with its keys. Empty if another tool writes them."
  type        = map(map(string))
  default     = {}
  sensitive   = true
}
