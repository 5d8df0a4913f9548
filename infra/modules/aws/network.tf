# Security groups by role, joined by reference: nothing is let in by address but
# the callers of the load balancer.

locals {
  groups = {
    balancer = "load balancer of ${var.name}"
    router   = "routers of ${var.name}"
    control  = "control members of ${var.name}"
    data     = "data nodes of ${var.name}"
  }

  # Who calls whom. Control members call data nodes when an admin compares
  # replicas from there.
  paths = {
    balancer-router = { from = "balancer", to = "router", port = local.router_port }
    router-control  = { from = "router", to = "control", port = local.control_port }
    router-data     = { from = "router", to = "data", port = local.data_port }
    control-control = { from = "control", to = "control", port = local.control_port }
    control-data    = { from = "control", to = "data", port = local.data_port }
    data-control    = { from = "data", to = "control", port = local.control_port }
    data-data       = { from = "data", to = "data", port = local.data_port }
  }

  # Sets known at plan time only: the ids of a caller's security groups may be
  # made in the same apply.
  metrics_paths = { for p in setproduct(["router", "control", "data"], range(length(var.observability.metrics_security_group_ids))) : "${p[0]}-${p[1]}" => { to = p[0], index = p[1] } }

  listener_port = var.certificate_arn == null ? 80 : 443
}

resource "aws_security_group" "role" {
  for_each    = local.groups
  name        = "${var.name}-${each.key}"
  description = each.value
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-${each.key}" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "path" {
  for_each                     = local.paths
  security_group_id            = aws_security_group.role[each.value.to].id
  referenced_security_group_id = aws_security_group.role[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = each.key
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "path" {
  for_each                     = local.paths
  security_group_id            = aws_security_group.role[each.value.from].id
  referenced_security_group_id = aws_security_group.role[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = each.key
  tags                         = local.tags
}

# Images, secrets, parameters, logs and sessions are all HTTPS.
resource "aws_vpc_security_group_egress_rule" "https" {
  for_each          = toset(["router", "control", "data"])
  security_group_id = aws_security_group.role[each.key].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "AWS and the registry of the image"
  tags              = local.tags
}

# A collector in the VPC, where one is set; its own group lets it in.
resource "aws_vpc_security_group_egress_rule" "telemetry" {
  for_each          = var.observability.otlp_endpoint == null ? toset([]) : toset(["router", "control", "data"])
  security_group_id = aws_security_group.role[each.key].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 4317
  to_port           = 4318
  description       = "OpenTelemetry collector"
  tags              = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "metrics" {
  for_each                     = local.metrics_paths
  security_group_id            = aws_security_group.role[each.value.to].id
  referenced_security_group_id = tolist(var.observability.metrics_security_group_ids)[each.value.index]
  ip_protocol                  = "tcp"
  from_port                    = local.ops_port
  to_port                      = local.ops_port
  description                  = "Prometheus"
  tags                         = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "callers" {
  for_each          = var.allowed_cidrs
  security_group_id = aws_security_group.role["balancer"].id
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = local.listener_port
  to_port           = local.listener_port
  description       = "clients"
  tags              = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "calling_groups" {
  count                        = length(var.allowed_security_group_ids)
  security_group_id            = aws_security_group.role["balancer"].id
  referenced_security_group_id = tolist(var.allowed_security_group_ids)[count.index]
  ip_protocol                  = "tcp"
  from_port                    = local.listener_port
  to_port                      = local.listener_port
  description                  = "clients"
  tags                         = local.tags
}

# Control members, on which admins work, may call the load balancer: a port
# forwarded through one of them reaches a cluster that nobody else can.
resource "aws_vpc_security_group_ingress_rule" "admin" {
  security_group_id            = aws_security_group.role["balancer"].id
  referenced_security_group_id = aws_security_group.role["control"].id
  ip_protocol                  = "tcp"
  from_port                    = local.listener_port
  to_port                      = local.listener_port
  description                  = "sessions on control members"
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "admin" {
  security_group_id            = aws_security_group.role["control"].id
  referenced_security_group_id = aws_security_group.role["balancer"].id
  ip_protocol                  = "tcp"
  from_port                    = local.listener_port
  to_port                      = local.listener_port
  description                  = "sessions on control members"
  tags                         = local.tags
}
