# A VPC of its own and a cluster in it. The load balancer is internal: the
# public API has no authentication, so nothing is put on the internet unasked.

data "aws_availability_zones" "available" {
  count = var.zones == null ? 1 : 0
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = var.zones == null ? slice(data.aws_availability_zones.available[0].names, 0, min(3, length(data.aws_availability_zones.available[0].names))) : var.zones
  tags  = merge(var.tags, { "fastpaca:example" = "aws-quickstart" })
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = var.name })
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = var.name })
}

resource "aws_subnet" "public" {
  for_each          = { for i, az in local.zones : az => i }
  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 4, 8 + each.value)
  tags              = merge(local.tags, { Name = "${var.name}-public-${each.key}" })
}

resource "aws_subnet" "private" {
  for_each          = { for i, az in local.zones : az => i }
  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 4, each.value)
  tags              = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${var.name}-public" })

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this.id
  }
}

resource "aws_route_table_association" "public" {
  for_each       = aws_subnet.public
  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

# One way out for all zones: a cluster goes on without it, nodes only need it to
# start.
resource "aws_eip" "nat" {
  domain = "vpc"
  tags   = merge(local.tags, { Name = "${var.name}-nat" })

  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public[local.zones[0]].id
  tags          = merge(local.tags, { Name = var.name })

  depends_on = [aws_route_table_association.public]
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${var.name}-private" })

  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.this.id
  }
}

resource "aws_route_table_association" "private" {
  for_each       = aws_subnet.private
  subnet_id      = each.value.id
  route_table_id = aws_route_table.private.id
}

module "cluster" {
  source = "../../modules/aws"

  name                  = var.name
  image                 = var.image
  ecr_repository_arns   = var.ecr_repository_arns
  control_members       = var.control_members
  data_nodes            = var.data_nodes
  drained_data_nodes    = var.drained_data_nodes
  routers               = var.routers
  archive               = var.archive
  archive_database      = { deletion_protection = false, skip_final_snapshot = true, multi_az = false }
  ami_id                = var.ami_id
  vpc_id                = aws_vpc.this.id
  load_balancer_subnets = [for s in aws_subnet.private : s.id]
  # By way of the route tables: nodes need the way out when they boot.
  private_subnets = { for az, a in aws_route_table_association.private : az => a.subnet_id }
  tags            = local.tags
  check_removals  = !var.offline
}
