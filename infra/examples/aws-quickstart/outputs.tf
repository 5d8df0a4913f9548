output "endpoint" {
  description = "URL of the public API, without /v1."
  value       = module.cluster.endpoint
}

output "admin_endpoint" {
  description = "Control members, inside the VPC."
  value       = module.cluster.admin_endpoint
}

output "admin_command" {
  description = "Opens a shell on a control member."
  value       = module.cluster.admin_command
}

output "upgrade_commands" {
  description = "Roll the image out, one node at a time."
  value       = module.cluster.upgrade_commands
}

output "nodes" {
  description = "All nodes by name."
  value       = module.cluster.nodes
}

output "prometheus_config" {
  description = "Configuration of a Prometheus in the VPC that scrapes every process."
  value       = module.cluster.prometheus_config
}

output "next" {
  description = "What to do next. The cluster is up some five minutes after the apply."
  value       = <<-EOT
    # In one terminal, a tunnel to the load balancer, which is not on the internet:
    ${module.cluster.tunnel_command}
    # In another:
    export FASTPACA_URL=http://127.0.0.1:4000
    curl -sS -X PUT "$FASTPACA_URL/v1/conversations/hello"
    # To look after the cluster:
    ${module.cluster.admin_command}
    sudo docker exec fastpaca /fastpaca cluster status
  EOT
}
