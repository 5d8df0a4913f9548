# A node is an address and a volume; the machine between them can be replaced.
# for_each by name: removing one node leaves all others as they are.

locals {
  nodes = merge(
    { for n in local.control_names : n => { role = "control", port = local.control_port } },
    { for n in local.data_names : n => { role = "data", port = local.data_port } },
  )

  # The image is read at each start, so that another one can be rolled out node
  # by node without replacing machines.
  image_parameter = "/fastpaca/${var.name}/image"

  archive_host = one(aws_db_instance.archive[*].address)
  archive_secret_arn = {
    none     = ""
    managed  = one(aws_secretsmanager_secret.archive[*].arn)
    external = var.archive_url_secret_arn
  }[var.archive]

  boot = {
    region          = local.region
    environment     = local.environment
    image_parameter = local.image_parameter
    log_group       = aws_cloudwatch_log_group.cluster.name
    token_secret    = local.token_secret_arn
    tls_secret      = var.tls == null ? "" : var.tls.secret_arn
    ops_port        = local.ops_port
  }
}

resource "aws_ssm_parameter" "image" {
  name        = local.image_parameter
  description = "Image that nodes of ${var.name} run from their next start on"
  type        = "String"
  value       = var.image
  tags        = local.tags
}

resource "aws_network_interface" "control" {
  for_each        = toset(local.control_names)
  subnet_id       = var.private_subnets[local.zone_of[each.key]]
  security_groups = [aws_security_group.role["control"].id]
  description     = "${var.name} ${each.key}"
  tags            = merge(local.tags, { Name = "${var.name}-${each.key}", "fastpaca:node" = each.key })
}

resource "aws_network_interface" "data" {
  for_each        = toset(local.data_names)
  subnet_id       = var.private_subnets[local.zone_of[each.key]]
  security_groups = [aws_security_group.role["data"].id]
  description     = "${var.name} ${each.key}"
  tags            = merge(local.tags, { Name = "${var.name}-${each.key}", "fastpaca:node" = each.key })
}

resource "aws_ebs_volume" "control" {
  for_each          = toset(local.control_names)
  availability_zone = local.zone_of[each.key]
  type              = "gp3"
  size              = 10
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}", "fastpaca:node" = each.key })
}

resource "aws_ebs_volume" "data" {
  for_each          = toset(local.data_names)
  availability_zone = local.zone_of[each.key]
  type              = "gp3"
  size              = var.data_volume.size
  iops              = var.data_volume.iops
  throughput        = var.data_volume.throughput
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  final_snapshot    = var.data_volume.final_snapshot
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}", "fastpaca:node" = each.key })

  # Without this, a number lowered too early would be noticed after volumes had
  # begun to go.
  depends_on = [terraform_data.placement_guard]
}

resource "aws_instance" "control" {
  for_each             = toset(local.control_names)
  ami                  = local.ami_id
  instance_type        = var.control_instance_type
  iam_instance_profile = aws_iam_instance_profile.node["control"].name
  user_data = templatefile("${path.module}/templates/node.sh.tftpl", merge(local.boot, {
    id             = each.key
    volume         = aws_ebs_volume.control[each.key].id
    archive_secret = ""
    archive_host   = ""
    arguments = [
      "control", "--id=${each.key}", "--listen=${aws_network_interface.control[each.key].private_ip}:${local.control_port}",
      "--peers=${local.peers}", "--bootstrap-expect=${var.replication_factor}", "--replication-factor=${var.replication_factor}",
    ]
  }))

  primary_network_interface {
    network_interface_id = aws_network_interface.control[each.key].id
  }
  root_block_device {
    encrypted   = true
    kms_key_id  = var.kms_key_arn
    volume_type = "gp3"
    volume_size = 10
  }
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  tags = merge(local.tags, { Name = "${var.name}-${each.key}", "fastpaca:role" = "control", "fastpaca:node" = each.key })

  # A newer system image or boot script must never replace a quorum at once:
  # replace a node with -replace, one at a time.
  lifecycle {
    ignore_changes = [ami, user_data]
  }

  depends_on = [aws_iam_role_policy.node, aws_secretsmanager_secret_version.token, terraform_data.placement_guard]
}

resource "aws_instance" "data" {
  for_each             = toset(local.data_names)
  ami                  = local.ami_id
  instance_type        = var.data_instance_type
  iam_instance_profile = aws_iam_instance_profile.node["data"].name
  user_data = templatefile("${path.module}/templates/node.sh.tftpl", merge(local.boot, {
    id             = each.key
    volume         = aws_ebs_volume.data[each.key].id
    archive_secret = local.archive_secret_arn
    archive_host   = local.archive_host == null ? "" : local.archive_host
    arguments = [
      "data", "--id=${each.key}", "--listen=${aws_network_interface.data[each.key].private_ip}:${local.data_port}",
      "--zone=${local.zone_of[each.key]}",
    ]
  }))

  primary_network_interface {
    network_interface_id = aws_network_interface.data[each.key].id
  }
  root_block_device {
    encrypted   = true
    kms_key_id  = var.kms_key_arn
    volume_type = "gp3"
    volume_size = 10
  }
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  tags = merge(local.tags, { Name = "${var.name}-${each.key}", "fastpaca:role" = "data", "fastpaca:node" = each.key })

  lifecycle {
    ignore_changes = [ami, user_data]
  }

  depends_on = [
    aws_iam_role_policy.node, aws_secretsmanager_secret_version.token, aws_secretsmanager_secret_version.archive,
    terraform_data.placement_guard,
  ]
}

resource "aws_volume_attachment" "control" {
  for_each                       = toset(local.control_names)
  device_name                    = "/dev/sdf"
  volume_id                      = aws_ebs_volume.control[each.key].id
  instance_id                    = aws_instance.control[each.key].id
  stop_instance_before_detaching = true
}

resource "aws_volume_attachment" "data" {
  for_each                       = toset(local.data_names)
  device_name                    = "/dev/sdf"
  volume_id                      = aws_ebs_volume.data[each.key].id
  instance_id                    = aws_instance.data[each.key].id
  stop_instance_before_detaching = true
}

# Takes over the image of the parameter, on one node. Run with a concurrency of
# one and no errors allowed (output upgrade_commands), it is a rolling upgrade
# that stops at the first node that does not come back.
resource "aws_ssm_document" "upgrade" {
  name            = "${var.name}-upgrade"
  document_type   = "Command"
  document_format = "JSON"
  tags            = local.tags
  content = jsonencode({
    schemaVersion = "2.2"
    description   = "Restart fastpaca with the image of ${local.image_parameter} and wait until it is ready"
    mainSteps = [{
      name   = "restart"
      action = "aws:runShellScript"
      inputs = {
        timeoutSeconds = "900"
        runCommand = [
          "set -eu",
          "systemctl restart fastpaca",
          "for attempt in $(seq 300); do",
          "  if docker exec fastpaca /fastpaca health --url http://127.0.0.1:${local.ops_port}; then exit 0; fi",
          "  sleep 2",
          "done",
          "echo 'not ready after ten minutes; journalctl -u fastpaca on this node says why' >&2",
          "exit 1",
        ]
      }
    }]
  })
}
