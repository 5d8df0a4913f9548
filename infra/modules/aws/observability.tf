resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/fastpaca/${var.name}"
  retention_in_days = var.observability.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}

# Routers come and go: Prometheus finds them by a name of the VPC, and the nodes
# by their tags.
resource "aws_service_discovery_private_dns_namespace" "cluster" {
  name        = "${var.name}.fastpaca.internal"
  description = "fastpaca cluster ${var.name}"
  vpc         = var.vpc_id
  tags        = local.tags
}

resource "aws_service_discovery_service" "router" {
  name        = "router"
  description = "Routers of ${var.name}, for their metrics"
  tags        = local.tags

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.cluster.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 15
    }
  }
}

locals {
  prometheus_config = yamlencode({
    global     = { scrape_interval = "15s", evaluation_interval = "15s" }
    rule_files = ["rules.yaml"]
    scrape_configs = [{
      job_name = "fastpaca"
      ec2_sd_configs = [{
        region = local.region
        port   = local.ops_port
        filters = [
          { name = "tag:fastpaca:cluster", values = [var.name] },
          { name = "instance-state-name", values = ["running"] },
        ]
      }]
      dns_sd_configs = [{
        names = ["${aws_service_discovery_service.router.name}.${aws_service_discovery_private_dns_namespace.cluster.name}"]
        type  = "A"
        port  = local.ops_port
      }]
      relabel_configs = [
        { source_labels = ["__meta_ec2_tag_fastpaca_node"], regex = "(.+)", target_label = "instance" },
        { source_labels = ["__meta_ec2_availability_zone"], regex = "(.+)", target_label = "zone" },
      ]
    }]
  })
}
