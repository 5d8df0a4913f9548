resource "docker_image" "postgres" {
  count        = var.archive == "managed" ? 1 : 0
  name         = var.postgres_image
  keep_locally = true
}

resource "docker_volume" "postgres" {
  count = var.archive == "managed" ? 1 : 0
  name  = "${var.name}-postgres"
}

resource "docker_container" "postgres" {
  count    = var.archive == "managed" ? 1 : 0
  name     = "${var.name}-postgres"
  hostname = "postgres"
  image    = docker_image.postgres[0].image_id

  env = toset([
    "POSTGRES_USER=fastpaca",
    "POSTGRES_DB=fastpaca",
    "POSTGRES_PASSWORD=${random_password.archive[0].result}",
  ])

  volumes {
    volume_name    = docker_volume.postgres[0].name
    container_path = "/var/lib/postgresql/data"
  }
  networks_advanced {
    name    = docker_network.cluster.name
    aliases = ["postgres"]
  }

  healthcheck {
    test     = ["CMD-SHELL", "pg_isready -U fastpaca"]
    interval = "2s"
    timeout  = "5s"
    retries  = 30
  }
  wait                  = true
  wait_timeout          = 120
  restart               = "unless-stopped"
  destroy_grace_seconds = local.stop_seconds
}
