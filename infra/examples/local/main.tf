terraform {
  required_version = ">= 1.11"

  required_providers {
    docker = {
      source  = "kreuzwerker/docker"
      version = ">= 4.0, < 5.0"
    }
  }
}

# DOCKER_HOST of the environment, or the engine of this machine.
provider "docker" {}

locals {
  root = abspath("${path.module}/../../..")

  # The tag follows the source, so that a changed source is a changed image.
  folders = ["cmd/fastpaca", "controlplane", "dataplane", "openapi", "router", "sdk/go"]
  sources = var.image != null ? [] : sort(concat(
    ["go.mod", "go.sum", "infra/Dockerfile", "infra/Dockerfile.dockerignore"],
    [
      for f in flatten([for d in local.folders : [for f in fileset("${local.root}/${d}", "**") : "${d}/${f}"]]) : f
      if !can(regex("(_test\\.go|\\.md|\\.test)$|/testdata/|/node_modules/", f))
    ],
  ))
  built = "fastpaca:src-${substr(sha256(join("", [for f in local.sources : "${f} ${filesha256("${local.root}/${f}")}\n"])), 0, 12)}"
  image = var.image != null ? var.image : terraform_data.image[0].input
}

# The docker command rather than the provider builds: the Dockerfile needs
# BuildKit and its own .dockerignore.
resource "terraform_data" "image" {
  count            = var.image == null ? 1 : 0
  input            = local.built
  triggers_replace = local.built

  provisioner "local-exec" {
    command     = "docker build --quiet -f infra/Dockerfile -t ${local.built} ."
    working_dir = local.root
    environment = { DOCKER_BUILDKIT = "1" }
  }

  # After the containers, in a destroy. While a new image is rolled out node by
  # node, the others still run the old one: it only loses its name then.
  provisioner "local-exec" {
    when       = destroy
    command    = "docker image rm --force ${self.input}"
    on_failure = continue
  }
}

module "cluster" {
  source = "../../modules/docker"

  name               = var.name
  image              = local.image
  control_members    = var.control_members
  data_nodes         = var.data_nodes
  drained_data_nodes = var.drained_data_nodes
  routers            = var.routers
  archive            = var.archive
  port               = var.port
  tls                = var.tls
  observability      = { dashboards = var.dashboards }
}
