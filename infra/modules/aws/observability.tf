resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/fastpaca/${var.name}"
  retention_in_days = var.observability.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}
