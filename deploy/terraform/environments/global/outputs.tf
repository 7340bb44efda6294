output "kurrent_project_id" {
  description = "Project of the event stores, for the variable network of environments/multi-env."
  value       = kurrentcloud_project.dofs.id
}

output "kurrent_network_id" {
  description = "Network of the event stores, for the variable network of environments/multi-env."
  value       = kurrentcloud_network.dofs.id
}

output "peering_metadata" {
  description = "Identifiers with which the owner of the cluster's VPC accepts the peering."
  value       = one(kurrentcloud_peering.cluster[*].provider_metadata)
}
