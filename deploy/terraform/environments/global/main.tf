# What all environments share: the project and the network of the managed event stores.

resource "kurrentcloud_project" "dofs" {
  name = "dofs"
}

resource "kurrentcloud_network" "dofs" {
  name              = "dofs"
  project_id        = kurrentcloud_project.dofs.id
  resource_provider = "aws"
  region            = var.region
  cidr_block        = var.event_store_cidr
}

# The owner of the cluster's VPC accepts the peering and adds the route.
resource "kurrentcloud_peering" "cluster" {
  count = var.cluster_network == null ? 0 : 1

  name                   = "dofs-cluster"
  project_id             = kurrentcloud_network.dofs.project_id
  network_id             = kurrentcloud_network.dofs.id
  peer_resource_provider = kurrentcloud_network.dofs.resource_provider
  peer_network_region    = kurrentcloud_network.dofs.region
  peer_account_id        = var.cluster_network.account_id
  peer_network_id        = var.cluster_network.vpc_id
  routes                 = [var.cluster_network.cidr]
}
