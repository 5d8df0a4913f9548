data "aws_region" "current" {}

data "aws_partition" "current" {}

# The newest Amazon Linux 2023, only asked for when no image is given.
data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null ? 1 : 0
  name  = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${var.architecture}"
}

locals {
  control_port = 7401
  data_port    = 7501
  ops_port     = 9400
  router_port  = 4000

  region    = data.aws_region.current.region
  partition = data.aws_partition.current.partition
  zones     = sort(keys(var.private_subnets))
  ami_id    = var.ami_id == null ? nonsensitive(data.aws_ssm_parameter.ami[0].value) : var.ami_id

  # Names are fixed and never used again: the first data_nodes of d1, d2, … that
  # were not drained. A change of the number renames nothing and moves no node
  # to another zone.
  control_names = [for i in range(var.control_members) : "c${i + 1}"]
  data_names = slice(
    [for i in range(var.data_nodes + length(var.drained_data_nodes)) : "d${i + 1}" if !contains(var.drained_data_nodes, "d${i + 1}")],
    0, var.data_nodes
  )
  zone_of = { for n in concat(local.control_names, local.data_names) : n => local.zones[(tonumber(substr(n, 1, -1)) - 1) % length(local.zones)] }

  # The same for every node, whatever the size of the cluster: control members
  # are fixed, and data nodes are found through them.
  control_addresses = join(",", [for c in local.control_names : "${aws_network_interface.control[c].private_ip}:${local.control_port}"])
  peers             = join(",", [for c in local.control_names : "${c}=${aws_network_interface.control[c].private_ip}:${local.control_port}"])

  environment = merge(
    var.environment,
    {
      FASTPACA_CONTROL    = local.control_addresses
      FASTPACA_OPS_LISTEN = "0.0.0.0:${local.ops_port}"
      FASTPACA_LOG_FORMAT = "json"
    },
    var.observability.otlp_endpoint == null ? {} : { OTEL_EXPORTER_OTLP_ENDPOINT = var.observability.otlp_endpoint },
    var.tls == null ? {} : {
      FASTPACA_TLS_CERT        = "/tls/cert.pem"
      FASTPACA_TLS_KEY         = "/tls/key.pem"
      FASTPACA_TLS_CA          = "/tls/ca.pem"
      FASTPACA_TLS_SERVER_NAME = var.tls.server_name
    },
  )

  token_secret_arn = var.token_secret_arn == null ? aws_secretsmanager_secret.token[0].arn : var.token_secret_arn
  # Parts of one secret.
  tls_parts = var.tls == null ? [] : ["cert", "key", "ca"]

  # What every process may read, and what data nodes may read besides.
  common_secret_arns = compact([local.token_secret_arn, var.tls == null ? null : var.tls.secret_arn])
  data_secret_arns = compact([
    var.archive_url_secret_arn,
    one(aws_secretsmanager_secret.archive[*].arn),
  ])

  tags = merge(var.tags, { "fastpaca:cluster" = var.name })
}
