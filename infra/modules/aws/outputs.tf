output "endpoint" {
  description = "URL of the public API, without /v1: that of the load balancer. With a certificate, give its name a DNS record that points here."
  value       = "${var.certificate_arn == null ? "http" : "https"}://${aws_lb.api.dns_name}"
}

output "endpoints" {
  description = "URLs of all entries: the load balancer is the only one."
  value       = ["${var.certificate_arn == null ? "http" : "https"}://${aws_lb.api.dns_name}"]
}

output "admin_endpoint" {
  description = "Control members, as `fastpaca cluster --control` takes them. The addresses hold inside the VPC."
  value       = local.control_addresses
}

output "admin_command" {
  description = "Opens a shell on a control member, where `sudo docker exec fastpaca /fastpaca cluster …` knows the cluster's address and token."
  value       = "aws ssm start-session --region ${local.region} --target ${aws_instance.control["c1"].id}"
}

output "tunnel_command" {
  description = "Forwards port 4000 of this machine to the load balancer, through a control member."
  value       = "aws ssm start-session --region ${local.region} --target ${aws_instance.control["c1"].id} --document-name AWS-StartPortForwardingSessionToRemoteHost --parameters host=${aws_lb.api.dns_name},portNumber=${local.listener_port},localPortNumber=4000"
}

output "upgrade_commands" {
  description = "Roll the image out one node at a time, stopping at the first that does not come back: control members, then data nodes."
  value = [for role in ["control", "data"] :
    "aws ssm send-command --region ${local.region} --document-name ${aws_ssm_document.upgrade.name} --targets Key=tag:fastpaca:cluster,Values=${var.name} Key=tag:fastpaca:role,Values=${role} --max-concurrency 1 --max-errors 0"
  ]
}

output "nodes" {
  description = "All nodes by name: role, internal address, instance and zone. Routers come and go and are not listed."
  value = merge(
    { for n in local.control_names : n => { role = "control", address = "${aws_network_interface.control[n].private_ip}:${local.control_port}", id = aws_instance.control[n].id, zone = local.zone_of[n] } },
    { for n in local.data_names : n => { role = "data", address = "${aws_network_interface.data[n].private_ip}:${local.data_port}", id = aws_instance.data[n].id, zone = local.zone_of[n] } },
  )
}

output "prometheus_config" {
  description = "Configuration of a Prometheus in the VPC that scrapes every process, up to eight routers; it expects infra/observability/prometheus/rules.yaml beside it, ec2:DescribeInstances and ec2:DescribeAvailabilityZones, and a group in observability.metrics_security_group_ids."
  value       = local.prometheus_config
}

output "token_secret_arn" {
  description = "Secret with the token all processes share."
  value       = local.token_secret_arn
}

output "archive_secret_arn" {
  description = "Secret with the password of the managed archive, or the URL of the external one; null without an archive."
  value       = var.archive == "none" ? null : local.archive_secret_arn
}

output "security_group_ids" {
  description = "Security groups by role: balancer, router, control, data."
  value       = { for role, group in aws_security_group.role : role => group.id }
}
