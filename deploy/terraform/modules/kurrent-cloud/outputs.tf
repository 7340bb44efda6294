output "dns_name" {
  description = "DNS name of the cluster, for esdb+discover://."
  value       = kurrentcloud_managed_cluster.dofs.dns_name
}
