output "program_environment" {
  description = "Value of DOFS_ENV, and name of the kustomize overlay and of the GitHub environment."
  value       = local.program_environment
}

output "namespace" {
  description = "Kubernetes namespace of the environment."
  value       = local.namespace
}

output "api_host" {
  description = "Host name of the API."
  value       = local.api_host
}

output "api_url" {
  description = "URL of the API."
  value       = "https://${local.api_host}"
}

output "labels" {
  description = "Labels of every resource in the cluster."
  value       = local.labels
}

output "sizes" {
  description = "Numbers of processes, their memory, and sizes of disks."
  value       = local.sizes
}

output "settings" {
  description = "Settings of the program as environment variables, without secrets."
  value       = local.settings
}

output "config_map" {
  description = "The settings as YAML of a ConfigMap, for clusters without the kustomize overlays."
  value = yamlencode({
    apiVersion = "v1"
    kind       = "ConfigMap"
    metadata   = { name = "dofs-settings", namespace = local.namespace, labels = local.labels }
    data       = local.settings
  })
}

output "environment_file" {
  description = "The settings as lines `KEY=value`: the variable SETTINGS of the GitHub environment, or a file for systemd."
  value       = join("", [for key, value in local.settings : "${key}=${value}\n"])
}

output "alert_thresholds" {
  description = "Thresholds for alerts on this environment."
  value       = local.alert_thresholds
}
