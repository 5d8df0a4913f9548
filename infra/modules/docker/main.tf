resource "random_password" "token" {
  count   = var.token == null ? 1 : 0
  length  = 48
  special = false
}

resource "random_password" "archive" {
  count   = var.archive == "managed" ? 1 : 0
  length  = 32
  special = false # it stands in a URL
}

resource "docker_image" "fastpaca" {
  name         = var.image
  keep_locally = var.keep_image
}

resource "docker_network" "cluster" {
  name   = var.name
  driver = "bridge"
}

# Volumes outlive containers: a replaced node finds its data again.
resource "docker_volume" "control" {
  for_each = toset(local.control_names)
  name     = "${var.name}-${each.key}"

  dynamic "labels" {
    for_each = local.labels
    content {
      label = labels.key
      value = labels.value
    }
  }
}

resource "docker_volume" "data" {
  for_each = toset(local.data_names)
  name     = "${var.name}-${each.key}"

  dynamic "labels" {
    for_each = local.labels
    content {
      label = labels.key
      value = labels.value
    }
  }
}

resource "docker_container" "control" {
  for_each = toset(local.control_names)
  name     = "${var.name}-${each.key}"
  hostname = each.key
  image    = docker_image.fastpaca.image_id

  command = [
    "control",
    "--id=${each.key}",
    "--listen=0.0.0.0:${local.control_port}",
    "--peers=${local.peers}",
    "--bootstrap-expect=${var.replication_factor}",
    "--replication-factor=${var.replication_factor}",
  ]
  env = toset(local.environment)

  volumes {
    volume_name    = docker_volume.control[each.key].name
    container_path = "/data"
  }
  dynamic "volumes" {
    for_each = local.tls_mounts
    content {
      host_path      = volumes.value
      container_path = "/tls"
      read_only      = true
    }
  }
  networks_advanced {
    name    = docker_network.cluster.name
    aliases = [each.key]
  }

  # A member is ready once a majority is there, so the check cannot be what
  # Terraform waits for when it makes them one after another.
  healthcheck {
    test         = ["CMD", "/fastpaca", "health", "--url", "${local.ops_url}/health/live"]
    interval     = "2s"
    timeout      = "5s"
    start_period = "20s"
    retries      = 15
  }
  wait         = true
  wait_timeout = 60

  restart               = "unless-stopped"
  destroy_grace_seconds = local.stop_seconds
  stop_timeout          = local.stop_seconds
  read_only             = true
  tmpfs                 = { "/tmp" = "" }
  security_opts         = ["no-new-privileges:true"]
  capabilities {
    drop = ["ALL"]
  }

  dynamic "labels" {
    for_each = merge(local.labels, { "fastpaca.role" = "control", "fastpaca.node" = each.key })
    content {
      label = labels.key
      value = labels.value
    }
  }
}

resource "docker_container" "data" {
  for_each = toset(local.data_names)
  name     = "${var.name}-${each.key}"
  hostname = each.key
  image    = docker_image.fastpaca.image_id

  command = [
    "data",
    "--id=${each.key}",
    "--listen=0.0.0.0:${local.data_port}",
    "--advertise=${each.key}:${local.data_port}",
  ]
  env = toset(concat(local.environment, local.archive_url == null ? [] : ["FASTPACA_ARCHIVE_URL=${local.archive_url}"]))

  volumes {
    volume_name    = docker_volume.data[each.key].name
    container_path = "/data"
  }
  dynamic "volumes" {
    for_each = local.tls_mounts
    content {
      host_path      = volumes.value
      container_path = "/tls"
      read_only      = true
    }
  }
  networks_advanced {
    name    = docker_network.cluster.name
    aliases = [each.key]
  }

  # Live, not ready: a node is ready once groups are placed on it, and a new one
  # gets groups only when the cluster is rebalanced.
  healthcheck {
    test         = ["CMD", "/fastpaca", "health", "--url", "${local.ops_url}/health/live"]
    interval     = "2s"
    timeout      = "5s"
    start_period = "20s"
    retries      = 15
  }
  wait         = true
  wait_timeout = 60

  restart               = "unless-stopped"
  destroy_grace_seconds = local.stop_seconds
  stop_timeout          = local.stop_seconds
  read_only             = true
  tmpfs                 = { "/tmp" = "" }
  security_opts         = ["no-new-privileges:true"]
  capabilities {
    drop = ["ALL"]
  }

  dynamic "labels" {
    for_each = merge(local.labels, { "fastpaca.role" = "data", "fastpaca.node" = each.key })
    content {
      label = labels.key
      value = labels.value
    }
  }

  depends_on = [terraform_data.placement_guard, docker_container.control, docker_container.postgres]
}

resource "docker_container" "router" {
  for_each = toset(local.router_names)
  name     = "${var.name}-${each.key}"
  hostname = each.key
  image    = docker_image.fastpaca.image_id

  command = ["router", "--listen=0.0.0.0:${local.router_port}"]
  env     = toset(local.environment)

  ports {
    internal = local.router_port
    external = var.port + index(local.router_names, each.key)
    ip       = var.bind_address
  }
  dynamic "volumes" {
    for_each = local.tls_mounts
    content {
      host_path      = volumes.value
      container_path = "/tls"
      read_only      = true
    }
  }
  networks_advanced {
    name    = docker_network.cluster.name
    aliases = [each.key]
  }

  # Ready: the groups are placed and the router knows where.
  healthcheck {
    test         = ["CMD", "/fastpaca", "health", "--url", "http://127.0.0.1:${local.router_port}"]
    interval     = "2s"
    timeout      = "5s"
    start_period = "1m0s"
    retries      = 15
  }
  wait         = true
  wait_timeout = 120

  restart               = "unless-stopped"
  destroy_grace_seconds = local.stop_seconds
  stop_timeout          = local.stop_seconds
  read_only             = true
  tmpfs                 = { "/tmp" = "" }
  security_opts         = ["no-new-privileges:true"]
  capabilities {
    drop = ["ALL"]
  }

  dynamic "labels" {
    for_each = merge(local.labels, { "fastpaca.role" = "router", "fastpaca.node" = each.key })
    content {
      label = labels.key
      value = labels.value
    }
  }

  depends_on = [docker_container.data]
}
