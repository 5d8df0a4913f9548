# The password is drawn here once per password_version, and handed to the
# database and to Secrets Manager in the same apply by write-only arguments. RDS
# could keep it itself, but rotates it every week, under running nodes.

ephemeral "random_password" "archive" {
  length  = 40
  special = false # it stands in a URL
}

resource "aws_db_subnet_group" "archive" {
  count       = var.archive == "managed" ? 1 : 0
  name_prefix = "${var.name}-archive-"
  subnet_ids  = values(var.private_subnets)
  tags        = local.tags
}

resource "aws_security_group" "archive" {
  count       = var.archive == "managed" ? 1 : 0
  name        = "${var.name}-archive"
  description = "archive of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-archive" })
}

resource "aws_vpc_security_group_ingress_rule" "archive" {
  count                        = var.archive == "managed" ? 1 : 0
  security_group_id            = aws_security_group.archive[0].id
  referenced_security_group_id = aws_security_group.role["data"].id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  description                  = "data nodes"
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "archive" {
  count                        = var.archive == "managed" ? 1 : 0
  security_group_id            = aws_security_group.role["data"].id
  referenced_security_group_id = aws_security_group.archive[0].id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  description                  = "archive"
  tags                         = local.tags
}

# Where an external archive stands is in its secret.
resource "aws_vpc_security_group_egress_rule" "external_archive" {
  count             = var.archive == "external" ? 1 : 0
  security_group_id = aws_security_group.role["data"].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
  description       = "external archive"
  tags              = local.tags
}

resource "aws_db_instance" "archive" {
  count                     = var.archive == "managed" ? 1 : 0
  identifier                = "${var.name}-archive"
  engine                    = "postgres"
  engine_version            = "17"
  instance_class            = var.archive_database.instance_class
  allocated_storage         = var.archive_database.storage
  max_allocated_storage     = var.archive_database.storage * 10
  storage_type              = "gp3"
  storage_encrypted         = true
  kms_key_id                = var.kms_key_arn
  db_name                   = "fastpaca"
  username                  = "fastpaca"
  password_wo               = ephemeral.random_password.archive.result
  password_wo_version       = var.archive_database.password_version
  db_subnet_group_name      = aws_db_subnet_group.archive[0].name
  vpc_security_group_ids    = [aws_security_group.archive[0].id]
  multi_az                  = var.archive_database.multi_az
  backup_retention_period   = 7
  copy_tags_to_snapshot     = true
  deletion_protection       = var.archive_database.deletion_protection
  skip_final_snapshot       = var.archive_database.skip_final_snapshot
  final_snapshot_identifier = "${var.name}-archive-final"
  publicly_accessible       = false
  tags                      = local.tags
}

resource "aws_secretsmanager_secret" "archive" {
  count       = var.archive == "managed" ? 1 : 0
  name_prefix = "${var.name}-archive-"
  description = "Password of fastpaca in the archive of ${var.name}"
  kms_key_id  = var.kms_key_arn
  tags        = local.tags
}

resource "aws_secretsmanager_secret_version" "archive" {
  count                    = var.archive == "managed" ? 1 : 0
  secret_id                = aws_secretsmanager_secret.archive[0].id
  secret_string_wo         = ephemeral.random_password.archive.result
  secret_string_wo_version = var.archive_database.password_version
}
