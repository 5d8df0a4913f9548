# What is drawn here is handed to Secrets Manager by write-only arguments: it is
# in no state and in no plan.

ephemeral "random_password" "token" {
  length  = 48
  special = false
}

resource "aws_secretsmanager_secret" "token" {
  count       = var.token_secret_arn == null ? 1 : 0
  name_prefix = "${var.name}-token-"
  description = "Secret shared by all processes of the fastpaca cluster ${var.name}"
  kms_key_id  = var.kms_key_arn
  tags        = local.tags
}

resource "aws_secretsmanager_secret_version" "token" {
  count                    = var.token_secret_arn == null ? 1 : 0
  secret_id                = aws_secretsmanager_secret.token[0].id
  secret_string_wo         = ephemeral.random_password.token.result
  secret_string_wo_version = var.token_version
}
