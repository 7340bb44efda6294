# The name is that of the AWS system, which scripts read.
output "api_gateway_url" {
  description = "URL of the API."
  value       = module.contract.api_url
}

output "settings" {
  description = "Settings of the program: the variable SETTINGS of the GitHub environment."
  value       = module.contract.environment_file
}

output "sizes" {
  description = "Numbers of processes and sizes of disks, to compare with the kustomize overlay."
  value       = module.contract.sizes
}

output "alert_thresholds" {
  description = "Thresholds for alerts on this environment."
  value       = module.contract.alert_thresholds
}

output "postgres" {
  description = "Address of the database, and the secret with the password of its administrator."
  value       = one(module.postgres[*])
}

output "event_store_host" {
  description = "DNS name of the event store: esdb+discover://USER:PASSWORD@HOST:2113."
  value       = one(module.event_store[*].dns_name)
}
