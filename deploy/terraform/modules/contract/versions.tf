# No provider: this module only computes, so `terraform test` needs no network and no credentials.
terraform {
  required_version = ">= 1.9"
}
