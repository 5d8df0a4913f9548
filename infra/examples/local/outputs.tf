output "endpoint" {
  description = "URL of the public API, without /v1."
  value       = module.cluster.endpoint
}

output "endpoints" {
  description = "URLs of all routers."
  value       = module.cluster.endpoints
}

output "admin_endpoint" {
  description = "Control members, inside the cluster's network."
  value       = module.cluster.admin_endpoint
}

output "admin_command" {
  description = "Prefix of every admin command."
  value       = module.cluster.admin_command
}

output "nodes" {
  description = "All processes by name."
  value       = module.cluster.nodes
}

output "dashboards" {
  description = "URLs of Grafana and Prometheus; null without dashboards."
  value       = module.cluster.dashboards
}

output "next" {
  description = "What to do next."
  value       = <<-EOT
    export FASTPACA_URL=${module.cluster.endpoint}
    curl -sS -X PUT "$FASTPACA_URL/v1/conversations/hello"
    curl -sS "$FASTPACA_URL/v1/conversations/hello/messages" -H 'Content-Type: application/json' -d '{"message": {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello!"}]}}'
    ${module.cluster.admin_command} status
  EOT
}
