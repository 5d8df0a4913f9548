# The rules and the dashboard of infra/observability, with this cluster's
# processes as targets.

locals {
  dashboards = var.observability.dashboards ? 1 : 0
  artifacts  = "${path.module}/../../observability"

  prometheus_config = yamlencode({
    global     = { scrape_interval = "15s", evaluation_interval = "15s" }
    rule_files = ["rules.yaml"]
    scrape_configs = [{
      job_name       = "fastpaca"
      static_configs = [{ targets = [for n in concat(local.control_names, local.data_names, local.router_names) : "${n}:${local.ops_port}"] }]
    }]
  })
}

resource "docker_image" "prometheus" {
  count        = local.dashboards
  name         = var.observability.prometheus_image
  keep_locally = true
}

resource "docker_image" "grafana" {
  count        = local.dashboards
  name         = var.observability.grafana_image
  keep_locally = true
}

resource "docker_volume" "prometheus" {
  count = local.dashboards
  name  = "${var.name}-prometheus"
}

resource "docker_container" "prometheus" {
  count    = local.dashboards
  name     = "${var.name}-prometheus"
  hostname = "prometheus"
  image    = docker_image.prometheus[0].image_id

  command = [
    "--config.file=/etc/prometheus/prometheus.yml",
    "--storage.tsdb.path=/prometheus",
    "--enable-feature=exemplar-storage",
  ]

  upload {
    file    = "/etc/prometheus/prometheus.yml"
    content = local.prometheus_config
  }
  upload {
    file    = "/etc/prometheus/rules.yaml"
    content = file("${local.artifacts}/prometheus/rules.yaml")
  }
  volumes {
    volume_name    = docker_volume.prometheus[0].name
    container_path = "/prometheus"
  }
  ports {
    internal = 9090
    external = var.observability.prometheus_port
    ip       = var.bind_address
  }
  networks_advanced {
    name    = docker_network.cluster.name
    aliases = ["prometheus"]
  }
  restart = "unless-stopped"

  dynamic "labels" {
    for_each = merge(local.labels, { "fastpaca.role" = "prometheus" })
    content {
      label = labels.key
      value = labels.value
    }
  }
}

resource "docker_container" "grafana" {
  count    = local.dashboards
  name     = "${var.name}-grafana"
  hostname = "grafana"
  image    = docker_image.grafana[0].image_id

  # Whoever reaches the port may look, and nobody may change: what is shown is
  # kept in files.
  env = toset([
    "GF_AUTH_ANONYMOUS_ENABLED=true",
    "GF_AUTH_ANONYMOUS_ORG_ROLE=Viewer",
    "GF_AUTH_DISABLE_LOGIN_FORM=true",
    "GF_ANALYTICS_REPORTING_ENABLED=false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES=false",
    "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH=/etc/grafana/dashboards/fastpaca.json",
  ])

  upload {
    file = "/etc/grafana/provisioning/datasources/prometheus.yaml"
    content = yamlencode({
      apiVersion  = 1
      datasources = [{ name = "Prometheus", uid = "prometheus", type = "prometheus", url = "http://prometheus:9090", isDefault = true }]
    })
  }
  upload {
    file = "/etc/grafana/provisioning/dashboards/fastpaca.yaml"
    content = yamlencode({
      apiVersion = 1
      providers  = [{ name = "fastpaca", type = "file", options = { path = "/etc/grafana/dashboards" } }]
    })
  }
  upload {
    file    = "/etc/grafana/dashboards/fastpaca.json"
    content = file("${local.artifacts}/grafana/fastpaca.json")
  }
  ports {
    internal = 3000
    external = var.observability.grafana_port
    ip       = var.bind_address
  }
  networks_advanced {
    name    = docker_network.cluster.name
    aliases = ["grafana"]
  }
  restart = "unless-stopped"

  dynamic "labels" {
    for_each = merge(local.labels, { "fastpaca.role" = "grafana" })
    content {
      label = labels.key
      value = labels.value
    }
  }

  depends_on = [docker_container.prometheus]
}
