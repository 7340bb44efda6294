resource "kurrentcloud_managed_cluster" "dofs" {
  name       = var.name
  project_id = var.project_id
  network_id = var.network_id

  topology      = var.topology
  instance_type = var.instance_type
  # A version that the contract suite runs against.
  server_version = "24.10"
  protected      = var.protected

  disk_type       = "gp3"
  disk_size       = var.disk_gib
  disk_iops       = 3000
  disk_throughput = 125
  # DOFS uses no projections of the server.
  projection_level = "off"
}
