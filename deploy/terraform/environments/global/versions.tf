terraform {
  required_version = ">= 1.9"

  required_providers {
    kurrentcloud = {
      source  = "kurrent-io/kurrentcloud"
      version = "~> 2.1"
    }
  }

  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

# Credentials: ESC_CLIENT_ID, ESC_CLIENT_SECRET and ESC_ORG_ID.
provider "kurrentcloud" {}
