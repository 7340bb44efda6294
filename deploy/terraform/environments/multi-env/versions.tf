terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 3.0"
    }
    kurrentcloud = {
      source  = "kurrent-io/kurrentcloud"
      version = "~> 2.1"
    }
  }

  # Bucket and key of each environment: terraform init -backend-config=FILE. The state contains passwords.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region
}

# Cluster and credentials: KUBE_CONFIG_PATH and KUBE_CTX, or the variables of the provider.
provider "kubernetes" {}

# Credentials: ESC_CLIENT_ID, ESC_CLIENT_SECRET and ESC_ORG_ID.
provider "kurrentcloud" {}
