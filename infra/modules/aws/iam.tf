# Nodes read their own secrets and image, write their own logs, and take
# sessions and commands of Systems Manager. Nothing else.

locals {
  assume_role = { for service in ["ec2", "ecs-tasks"] : service => jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "${service}.amazonaws.com" } }]
  }) }

  pull_statements = length(var.ecr_repository_arns) == 0 ? [] : [
    { Effect = "Allow", Action = ["ecr:GetAuthorizationToken"], Resource = ["*"] },
    {
      Effect   = "Allow"
      Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Resource = sort(var.ecr_repository_arns)
    },
  ]
  decrypt_statements = var.kms_key_arn == null ? [] : [
    { Effect = "Allow", Action = ["kms:Decrypt"], Resource = [var.kms_key_arn] },
  ]
  log_statements = [{
    Effect   = "Allow"
    Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    Resource = ["${aws_cloudwatch_log_group.cluster.arn}:*"]
  }]

  # What an agent of Systems Manager needs to be reached, which AWS offers no
  # resources to narrow.
  session_statements = [{
    Effect = "Allow"
    Action = [
      "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage",
      "ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply",
      "ssm:UpdateInstanceInformation", "ssm:ListAssociations", "ssm:ListInstanceAssociations", "ssm:GetDocument", "ssm:DescribeDocument",
      "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    Resource = ["*"]
  }]

  node_secret_arns = {
    control = local.common_secret_arns
    data    = concat(local.common_secret_arns, local.data_secret_arns)
  }
}

resource "aws_iam_role" "node" {
  for_each           = local.node_secret_arns
  name_prefix        = "${var.name}-${each.key}-"
  assume_role_policy = local.assume_role["ec2"]
  tags               = local.tags
}

resource "aws_iam_role_policy" "node" {
  for_each = local.node_secret_arns
  name     = "fastpaca"
  role     = aws_iam_role.node[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        { Effect = "Allow", Action = ["secretsmanager:GetSecretValue"], Resource = each.value },
        { Effect = "Allow", Action = ["ssm:GetParameter"], Resource = [aws_ssm_parameter.image.arn] },
      ],
      local.log_statements, local.pull_statements, local.decrypt_statements, local.session_statements,
    )
  })
}

resource "aws_iam_instance_profile" "node" {
  for_each    = local.node_secret_arns
  name_prefix = "${var.name}-${each.key}-"
  role        = aws_iam_role.node[each.key].name
  tags        = local.tags
}

# Starts routers: pulls their image, reads the secrets they share, writes their logs. A
# running router has no role at all, as it calls nothing of AWS.
resource "aws_iam_role" "router_start" {
  name_prefix        = "${var.name}-router-"
  assume_role_policy = local.assume_role["ecs-tasks"]
  tags               = local.tags
}

resource "aws_iam_role_policy" "router_start" {
  name = "fastpaca"
  role = aws_iam_role.router_start.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{ Effect = "Allow", Action = ["secretsmanager:GetSecretValue"], Resource = local.common_secret_arns }],
      local.log_statements, local.pull_statements, local.decrypt_statements,
    )
  })
}
