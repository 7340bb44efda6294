# Namespace of an environment, the permissions of its deployments, and its secrets.

locals {
  # What deploy/kubernetes/rollout reads and writes. The overlays contain these kinds and no others.
  pipeline_rules = concat(
    [
      { groups = ["apps"], resources = ["deployments", "statefulsets"], verbs = local.write },
      { groups = ["batch"], resources = ["jobs"], verbs = concat(local.write, ["delete"]) },
      { groups = [""], resources = ["configmaps", "serviceaccounts", "services"], verbs = local.write },
      { groups = ["networking.k8s.io"], resources = ["ingresses", "networkpolicies"], verbs = local.write },
      { groups = ["policy"], resources = ["poddisruptionbudgets"], verbs = local.write },
      { groups = ["autoscaling"], resources = ["horizontalpodautoscalers"], verbs = local.write },
      { groups = ["external-secrets.io"], resources = ["externalsecrets"], verbs = local.write },
      { groups = ["monitoring.coreos.com"], resources = ["servicemonitors"], verbs = local.write },
      # `rollout undo` and `rollout status`, the mark of a failed revision, and the log of a failed migration.
      { groups = ["apps"], resources = ["replicasets"], verbs = concat(local.read, ["patch"]) },
      { groups = [""], resources = ["pods", "pods/log"], verbs = local.read },
    ],
    var.pipeline_writes_secrets ? [{ groups = [""], resources = ["secrets"], verbs = local.write }] : [],
  )
  read  = ["get", "list", "watch"]
  write = ["get", "list", "watch", "create", "patch"]
}

resource "kubernetes_namespace_v1" "dofs" {
  metadata {
    name = var.namespace
    labels = merge(var.labels, {
      "pod-security.kubernetes.io/enforce" = "restricted"
      "pod-security.kubernetes.io/warn"    = "restricted"
    })
  }
}

resource "kubernetes_secret_v1" "role" {
  # Names are not secret; `for_each` needs to know them.
  for_each = nonsensitive(toset(keys(var.secrets)))

  metadata {
    name      = each.key
    namespace = kubernetes_namespace_v1.dofs.metadata[0].name
    labels    = var.labels
  }

  data = var.secrets[each.key]
}

resource "kubernetes_role_v1" "pipeline" {
  count = var.pipeline_user == "" ? 0 : 1

  metadata {
    name      = "dofs-pipeline"
    namespace = kubernetes_namespace_v1.dofs.metadata[0].name
    labels    = var.labels
  }

  dynamic "rule" {
    for_each = local.pipeline_rules

    content {
      api_groups = rule.value.groups
      resources  = rule.value.resources
      verbs      = rule.value.verbs
    }
  }
}

resource "kubernetes_role_binding_v1" "pipeline" {
  count = var.pipeline_user == "" ? 0 : 1

  metadata {
    name      = "dofs-pipeline"
    namespace = kubernetes_namespace_v1.dofs.metadata[0].name
    labels    = var.labels
  }

  role_ref {
    api_group = "rbac.authorization.k8s.io"
    kind      = "Role"
    name      = kubernetes_role_v1.pipeline[0].metadata[0].name
  }

  subject {
    api_group = "rbac.authorization.k8s.io"
    kind      = "User"
    name      = var.pipeline_user
  }
}

# The overlay contains the namespace, which belongs to no namespace.
resource "kubernetes_cluster_role_v1" "pipeline" {
  count = var.pipeline_user == "" ? 0 : 1

  metadata {
    name   = "${var.namespace}-pipeline"
    labels = var.labels
  }

  rule {
    api_groups     = [""]
    resources      = ["namespaces"]
    resource_names = [var.namespace]
    verbs          = ["get", "patch"]
  }
}

resource "kubernetes_cluster_role_binding_v1" "pipeline" {
  count = var.pipeline_user == "" ? 0 : 1

  metadata {
    name   = "${var.namespace}-pipeline"
    labels = var.labels
  }

  role_ref {
    api_group = "rbac.authorization.k8s.io"
    kind      = "ClusterRole"
    name      = kubernetes_cluster_role_v1.pipeline[0].metadata[0].name
  }

  subject {
    api_group = "rbac.authorization.k8s.io"
    kind      = "User"
    name      = var.pipeline_user
  }
}
