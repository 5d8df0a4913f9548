output "endpoint" {
  description = "URL of the public API, without /v1: that of the first router."
  value       = "http://${local.reachable}:${var.port}"
  depends_on  = [docker_container.router]
}

output "endpoints" {
  description = "URLs of all routers."
  value       = [for i in range(var.routers) : "http://${local.reachable}:${var.port + i}"]
  depends_on  = [docker_container.router]
}

output "admin_endpoint" {
  description = "Control members, as `fastpaca cluster --control` takes them. The addresses hold inside the cluster's network."
  value       = local.control_addresses
}

output "admin_command" {
  description = "Prefix of every admin command, where the cluster's address and token are known."
  value       = "docker exec ${var.name}-c1 /fastpaca cluster"
}

output "nodes" {
  description = "All processes by name: role, address inside the network, and container."
  value = merge(
    { for n in local.control_names : n => { role = "control", address = "${n}:${local.control_port}", id = docker_container.control[n].name } },
    { for n in local.data_names : n => { role = "data", address = "${n}:${local.data_port}", id = docker_container.data[n].name } },
    { for n in local.router_names : n => { role = "router", address = "${n}:${local.router_port}", id = docker_container.router[n].name } },
  )
}

output "prometheus_config" {
  description = "Configuration of a Prometheus that scrapes every process; it expects infra/observability/prometheus/rules.yaml beside it."
  value       = local.prometheus_config
}

output "dashboards" {
  description = "URLs of Grafana and Prometheus; null without observability.dashboards."
  value = var.observability.dashboards ? {
    grafana    = "http://${local.reachable}:${var.observability.grafana_port}"
    prometheus = "http://${local.reachable}:${var.observability.prometheus_port}"
  } : null
}

output "token" {
  description = "Secret shared by all processes of the cluster."
  value       = local.token
  sensitive   = true
}
