# A cluster in a VPC that is there already. Without any variable that is the
# default VPC of the region, to which private subnets and a NAT gateway are
# added; set vpc_id and private_subnets to use your own.

data "aws_vpc" "this" {
  count   = var.private_subnets == null ? 1 : 0
  id      = var.vpc_id
  default = var.vpc_id == null
}

data "aws_subnets" "public" {
  count = var.private_subnets == null ? 1 : 0

  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.this[0].id]
  }
  filter {
    name   = "map-public-ip-on-launch"
    values = ["true"]
  }
}

data "aws_subnet" "public" {
  for_each = toset(try(data.aws_subnets.public[0].ids, []))
  id       = each.key
}

locals {
  tags = merge(var.tags, { "fastpaca:example" = "aws-existing-vpc" })

  # Zones that have a public subnet, three at most.
  all_zones = sort(distinct([for s in data.aws_subnet.public : s.availability_zone]))
  zones     = slice(local.all_zones, 0, min(3, length(local.all_zones)))
  made      = var.private_subnets == null ? { for i, az in local.zones : az => i } : {}

  vpc_id = var.private_subnets == null ? data.aws_vpc.this[0].id : var.vpc_id
  # By way of the route table: nodes need the way out when they boot.
  private_subnets = var.private_subnets == null ? { for az, a in aws_route_table_association.private : az => a.subnet_id } : var.private_subnets
}

resource "aws_subnet" "private" {
  for_each          = local.made
  vpc_id            = local.vpc_id
  availability_zone = each.key
  # Default subnets fill a default VPC from below.
  cidr_block = cidrsubnet(data.aws_vpc.this[0].cidr_block, 4, 12 + each.value)
  tags       = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_eip" "nat" {
  count  = var.private_subnets == null ? 1 : 0
  domain = "vpc"
  tags   = merge(local.tags, { Name = "${var.name}-nat" })
}

resource "aws_nat_gateway" "this" {
  count         = var.private_subnets == null ? 1 : 0
  allocation_id = aws_eip.nat[0].id
  subnet_id     = sort(keys(data.aws_subnet.public))[0]
  tags          = merge(local.tags, { Name = var.name })
}

resource "aws_route_table" "private" {
  count  = var.private_subnets == null ? 1 : 0
  vpc_id = local.vpc_id
  tags   = merge(local.tags, { Name = "${var.name}-private" })

  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.this[0].id
  }
}

resource "aws_route_table_association" "private" {
  for_each       = aws_subnet.private
  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[0].id
}

module "cluster" {
  source = "../../modules/aws"

  name                       = var.name
  image                      = var.image
  ecr_repository_arns        = var.ecr_repository_arns
  control_members            = var.control_members
  data_nodes                 = var.data_nodes
  drained_data_nodes         = var.drained_data_nodes
  routers                    = var.routers
  archive                    = var.archive
  ami_id                     = var.ami_id
  vpc_id                     = local.vpc_id
  private_subnets            = local.private_subnets
  load_balancer_subnets      = var.load_balancer_subnets == null ? values(local.private_subnets) : var.load_balancer_subnets
  public                     = var.public
  certificate_arn            = var.certificate_arn
  allowed_cidrs              = var.allowed_cidrs
  allowed_security_group_ids = var.allowed_security_group_ids
  observability              = { otlp_endpoint = var.otlp_endpoint }
  tags                       = local.tags
  check_removals             = !var.offline
}
