# What is made of the inputs, with an AWS that only pretends.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_instances" {
    defaults = { ids = [] }
  }
  mock_data "aws_ssm_parameter" {
    defaults = { value = "ami-0123456789abcdef0" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:drawn" }
  }
  mock_resource "aws_network_interface" {
    defaults = { id = "eni-0123456789abcdef0", private_ip = "10.0.0.7" }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/x/1", dns_name = "x.elb.amazonaws.com" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/x/1" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/x" }
  }
  mock_resource "aws_service_discovery_service" {
    defaults = { arn = "arn:aws:servicediscovery:eu-central-1:123456789012:service/x" }
  }
  mock_resource "aws_db_instance" {
    defaults = { address = "archive.internal" }
  }
}

variables {
  vpc_id = "vpc-0123456789abcdef0"
  private_subnets = {
    eu-central-1a = "subnet-0a"
    eu-central-1b = "subnet-0b"
    eu-central-1c = "subnet-0c"
  }
  load_balancer_subnets = ["subnet-0a", "subnet-0b"]
}

run "defaults" {
  command = plan

  assert {
    condition     = tolist(keys(aws_instance.control)) == tolist(["c1", "c2", "c3"]) && tolist(keys(aws_instance.data)) == tolist(["d1", "d2", "d3"])
    error_message = "three control members and three data nodes are the default"
  }
  assert {
    condition     = [for n in ["d1", "d2", "d3"] : aws_ebs_volume.data[n].availability_zone] == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    error_message = "data nodes stand in different zones, each with its volume"
  }
  assert {
    condition     = alltrue([for v in merge(aws_ebs_volume.control, aws_ebs_volume.data) : v.encrypted]) && alltrue([for i in merge(aws_instance.control, aws_instance.data) : i.root_block_device[0].encrypted])
    error_message = "all volumes are encrypted"
  }
  assert {
    condition     = alltrue([for i in merge(aws_instance.control, aws_instance.data) : i.metadata_options[0].http_tokens == "required" && i.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "instances answer to version 2 of the metadata service only"
  }
  assert {
    condition     = aws_lb.api.internal && aws_lb.api.idle_timeout == 300 && aws_lb_listener.api.port == 80
    error_message = "the load balancer is internal and patient with streams"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.callers) == 0
    error_message = "nobody is let in unasked"
  }
  assert {
    condition     = length(aws_db_instance.archive) == 0
    error_message = "no archive unless asked for"
  }
  assert {
    condition     = aws_appautoscaling_target.router.min_capacity == 2 && aws_appautoscaling_target.router.max_capacity == 10
    error_message = "routers scale between the given numbers"
  }
}

run "a_drained_node_gives_its_place_to_another" {
  command = plan
  variables {
    data_nodes         = 4
    drained_data_nodes = ["d2"]
  }

  assert {
    condition     = tolist(keys(aws_instance.data)) == tolist(["d1", "d3", "d4", "d5"]) && aws_ebs_volume.data["d3"].availability_zone == "eu-central-1c" && aws_ebs_volume.data["d4"].availability_zone == "eu-central-1a"
    error_message = "removing a node must rename no other and move none to another zone"
  }
}

run "a_node_that_may_hold_replicas_stays" {
  # says: This plan would destroy data nodes that may hold replicas: d4.
  # says: cluster drain NAME --yes --wait
  # says: add its name to drained_data_nodes once that has succeeded. To keep the nodes, set data_nodes back.
  command = plan
  override_data {
    target = data.aws_instances.existing
    values = { ids = ["i-4"] }
  }
  override_data {
    target = data.aws_instance.existing
    values = { tags = { "fastpaca:node" = "d4" } }
  }
  expect_failures = [terraform_data.placement_guard]
}

run "a_drained_node_may_go" {
  command = plan
  override_data {
    target = data.aws_instances.existing
    values = { ids = ["i-4"] }
  }
  override_data {
    target = data.aws_instance.existing
    values = { tags = { "fastpaca:node" = "d4" } }
  }
  variables {
    drained_data_nodes = ["d4"]
  }

  assert {
    condition     = tolist(keys(aws_instance.data)) == tolist(["d1", "d2", "d3"])
    error_message = "a drained node may be removed"
  }
}

run "on_the_internet" {
  command = plan
  variables {
    public          = true
    certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
    allowed_cidrs   = ["203.0.113.0/24"]
  }

  assert {
    condition     = !aws_lb.api.internal && aws_lb_listener.api.protocol == "HTTPS" && aws_lb_listener.api.port == 443 && aws_vpc_security_group_ingress_rule.callers["203.0.113.0/24"].from_port == 443
    error_message = "on the internet by TLS only, for the named networks"
  }
}

run "everything" {
  command = apply
  variables {
    archive             = "managed"
    observability       = { otlp_endpoint = "http://collector:4318", metrics_security_group_ids = ["sg-0a"] }
    ecr_repository_arns = ["arn:aws:ecr:eu-central-1:123456789012:repository/fastpaca"]
    image               = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/fastpaca:v1"
    kms_key_arn         = "arn:aws:kms:eu-central-1:123456789012:key/1"
  }

  assert {
    condition     = aws_secretsmanager_secret_version.token[0].secret_string == null && aws_secretsmanager_secret_version.archive[0].secret_string == null && aws_db_instance.archive[0].password == null
    error_message = "secrets are not in the state"
  }
  assert {
    condition     = alltrue([for i in aws_instance.data : strcontains(i.user_data, "10.0.0.7:7501") && strcontains(i.user_data, "@archive.internal:5432/fastpaca") && !strcontains(i.user_data, "%%{")])
    error_message = "data nodes learn their address and the archive"
  }
  assert {
    condition     = alltrue([for i in aws_instance.control : !strcontains(i.user_data, "FASTPACA_ARCHIVE_URL")])
    error_message = "only data nodes hold the archive's password"
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.node["control"].policy, "*:*") && !strcontains(aws_iam_role_policy.node["data"].policy, "secretsmanager:*")
    error_message = "permissions are named one by one"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.metrics) == 3
    error_message = "Prometheus reaches all roles"
  }
  assert {
    condition     = yamldecode(output.prometheus_config).scrape_configs[0].dns_sd_configs[0].names == ["router.fastpaca.fastpaca.internal"] && yamldecode(output.prometheus_config).scrape_configs[0].ec2_sd_configs[0].filters[0].values == ["fastpaca"]
    error_message = "Prometheus finds nodes by their tags and routers by their name"
  }
  assert {
    condition     = output.endpoint == "http://x.elb.amazonaws.com" && length(output.nodes) == 6 && length(output.upgrade_commands) == 2
    error_message = "the outputs"
  }
}

run "tls_between_processes" {
  # Of its own: what a node boots with changes in no node that is there.
  state_key = "tls"
  command   = apply
  variables {
    tls = { secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tls" }
  }

  assert {
    condition     = alltrue([for i in merge(aws_instance.control, aws_instance.data) : strcontains(i.user_data, "--volume /run/fastpaca/tls:/tls:ro") && strcontains(i.user_data, "--env 'FASTPACA_TLS_SERVER_NAME=fastpaca'") && strcontains(i.user_data, "secret:tls")])
    error_message = "nodes read their certificate at start"
  }
  assert {
    condition     = [for c in jsondecode(aws_ecs_task_definition.router.container_definitions) : c.name] == ["tls", "router"] && jsondecode(aws_ecs_task_definition.router.container_definitions)[1].dependsOn[0].condition == "SUCCESS" && jsondecode(aws_ecs_task_definition.router.container_definitions)[0].secrets[1].valueFrom == "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tls:key::"
    error_message = "routers start once their certificate is there"
  }
  assert {
    condition     = alltrue([for p in [aws_iam_role_policy.node["control"].policy, aws_iam_role_policy.node["data"].policy, aws_iam_role_policy.router_start.policy] : strcontains(p, "secret:tls")])
    error_message = "every process may read its certificate"
  }
}

run "the_smallest" {
  command = apply
  variables {
    control_members    = 1
    data_nodes         = 1
    replication_factor = 1
    routers            = 1
    private_subnets    = { eu-central-1a = "subnet-0a" }
    token_secret_arn   = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mine"
  }

  assert {
    condition     = length(output.nodes) == 2 && length(aws_secretsmanager_secret.token) == 0 && output.token_secret_arn == "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mine"
    error_message = "one of each, with the given token"
  }
}
