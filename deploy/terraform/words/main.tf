# Topics and rights of examples/word_count.py; topics.tf and acls.tf are written by deploy/generate.sh.
# TF_VAR_client_key brings the secret: it is in no file, though Terraform keeps it in its state.
terraform {
  required_providers {
    kafka = {
      source  = "Mongey/kafka"
      version = ">= 0.7"
    }
  }
}

variable "bootstrap_servers" {
  type = list(string)
}

variable "ca_cert" {
  type        = string
  description = "PEM, or the path of a file with it."
}

variable "client_cert" {
  type        = string
  description = "PEM, or the path of a file with it."
}

variable "client_key" {
  type        = string
  sensitive   = true
  description = "PEM, or the path of a file with it."
}

provider "kafka" {
  bootstrap_servers = var.bootstrap_servers
  tls_enabled       = true
  ca_cert           = var.ca_cert
  client_cert       = var.client_cert
  client_key        = var.client_key
}
