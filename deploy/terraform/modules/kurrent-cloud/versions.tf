terraform {
  required_version = ">= 1.9"

  required_providers {
    kurrentcloud = {
      source  = "kurrent-io/kurrentcloud"
      version = "~> 2.1"
    }
  }
}
