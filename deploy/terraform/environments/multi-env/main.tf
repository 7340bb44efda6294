# One environment of DOFS: settings and sizes, the namespace in the cluster, and the managed stores. The
# workflows deploy the program itself with the kustomize overlays, so no image is named here.

module "contract" {
  source = "../../modules/contract"

  environment              = var.environment
  domain                   = var.domain
  fulfillment_success_rate = var.fulfillment_success_rate
  gateway                  = var.gateway
  gateway_url              = var.gateway_url
  orders_per_month         = var.orders_per_month
  minimum_replicas         = var.minimum_replicas
}

module "kubernetes" {
  source = "../../modules/kubernetes"

  namespace     = module.contract.namespace
  labels        = module.contract.labels
  pipeline_user = var.pipeline_user
  # The overlay of dev contains its own Secrets.
  pipeline_writes_secrets = var.environment == "dev"
  secrets = var.write_secrets ? {
    dofs-api = {
      "ca.crt"               = var.event_store_ca
      console_session_secret = var.console_session_secret
      event_store_url        = var.store_urls.event_store.api
      read_model_url         = var.store_urls.read_model.api
    }
    dofs-worker = {
      "ca.crt"        = var.event_store_ca
      event_store_url = var.store_urls.event_store.worker
      fulfillment_url = var.gateway_url
    }
    dofs-projector = {
      "ca.crt"        = var.event_store_ca
      event_store_url = var.store_urls.event_store.projector
      read_model_url  = var.store_urls.read_model.projector
    }
    dofs-migrate = {
      read_model_url = var.store_urls.read_model.owner
    }
  } : {}
}

module "postgres" {
  source = "../../modules/postgres-aws"
  count  = var.postgres == null ? 0 : 1

  name                = module.contract.namespace
  instance_class      = var.postgres.instance_class
  multi_az            = var.postgres.multi_az
  disk_gib            = module.contract.sizes.read_model_disk_gib
  subnet_ids          = var.network.subnet_ids
  security_group_ids  = var.network.database_security_groups
  deletion_protection = var.environment == "prod"
}

module "event_store" {
  source = "../../modules/kurrent-cloud"
  count  = var.kurrent_cloud == null ? 0 : 1

  name          = module.contract.namespace
  project_id    = var.network.kurrent_project_id
  network_id    = var.network.kurrent_network_id
  topology      = var.kurrent_cloud.topology
  instance_type = var.kurrent_cloud.instance_type
  disk_gib      = module.contract.sizes.event_store_disk_gib
  protected     = var.environment == "prod"
}
