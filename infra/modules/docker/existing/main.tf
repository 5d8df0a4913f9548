# Which data nodes of a cluster the engine knows, by the labels the cluster's
# containers carry. A module of its own, so that tests can put another answer in
# its place.

terraform {
  required_providers {
    docker = {
      source = "kreuzwerker/docker"
    }
  }
}

variable "cluster" {
  description = "Name of the cluster."
  type        = string
}

data "docker_containers" "all" {}

output "data_nodes" {
  description = "Names of the data nodes that exist, running or not."
  value = toset([
    for c in data.docker_containers.all.containers : c.labels["fastpaca.node"]
    if try(c.labels["fastpaca.cluster"] == var.cluster && c.labels["fastpaca.role"] == "data" && c.labels["fastpaca.node"] != "", false)
  ])
}
