# Bad input is refused with a sentence that says what to do (after "says", which
# infra/refusals compares with what is printed), before anything is
# asked of AWS. The random provider is the real one: it needs no network, and
# providers that pretend have no ephemeral values.

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
}

variables {
  vpc_id = "vpc-0123456789abcdef0"
  ami_id = "ami-0123456789abcdef0"
  private_subnets = {
    eu-central-1a = "subnet-0a"
    eu-central-1b = "subnet-0b"
    eu-central-1c = "subnet-0c"
  }
  load_balancer_subnets = ["subnet-0a", "subnet-0b"]
}

run "an_even_number_of_control_members" {
  # says: control_members: use 1, 3 or 5. An even number survives no more failures than one less: take 3 to survive the loss of one, 5 for two.
  command         = plan
  expect_failures = [var.control_members]
  variables {
    control_members = 4
  }
}

run "no_data_node" {
  # says: data_nodes: use a whole number from 1 to 500. Messages live on data nodes, so there must be one; take 3 to survive the loss of a machine. To remove the cluster, run `terraform destroy`.
  command         = plan
  expect_failures = [var.data_nodes]
  variables {
    data_nodes = 0
  }
}

run "fewer_data_nodes_than_replicas" {
  # says: Raise data_nodes to at least the replication factor, or set replication_factor = 1
  command         = plan
  expect_failures = [var.replication_factor]
  variables {
    data_nodes = 1
  }
}

run "no_router" {
  # says: routers: use a whole number from 1 to 50. Clients reach the cluster through a router only.
  command         = plan
  expect_failures = [var.routers]
  variables {
    routers = 0
  }
}

run "fewer_routers_at_most_than_at_least" {
  # says: routers_max: must not be less than routers.
  command         = plan
  expect_failures = [var.routers_max]
  variables {
    routers = 11
  }
}

run "an_external_archive_without_its_secret" {
  # says: archive: an external archive needs its secret.
  # says: or set archive = "managed"
  command         = plan
  expect_failures = [var.archive]
  variables {
    archive = "external"
  }
}

run "a_secret_that_is_a_url_and_no_arn" {
  # says: archive_url_secret_arn: give the ARN of a secret
  command         = plan
  expect_failures = [var.archive_url_secret_arn]
  variables {
    archive                = "external"
    archive_url_secret_arn = "postgres://u:p@h/d"
  }
}

run "a_token_in_the_place_of_its_secret" {
  # says: token_secret_arn: give the ARN of a secret
  # says: or leave it null to have one drawn.
  command         = plan
  expect_failures = [var.token_secret_arn]
  variables {
    token_secret_arn = "sixteen-or-more-characters"
  }
}

run "a_managed_archive_in_one_zone" {
  # says: archive: RDS needs subnets in two zones. Add one to private_subnets
  command         = plan
  expect_failures = [var.archive]
  variables {
    archive         = "managed"
    private_subnets = { eu-central-1a = "subnet-0a" }
  }
}

run "zones_of_two_regions" {
  # says: private_subnets: all zones must belong to one region.
  command         = plan
  expect_failures = [var.private_subnets]
  variables {
    private_subnets = { eu-central-1a = "subnet-0a", us-east-1a = "subnet-0b" }
  }
}

run "a_region_other_than_the_subnets" {
  # says: private_subnets stand in us-east-1, but the provider is set to eu-central-1. Set the provider's region to that of the subnets.
  command         = plan
  expect_failures = [terraform_data.placement_guard]
  variables {
    private_subnets = { us-east-1a = "subnet-0a", us-east-1b = "subnet-0b" }
  }
}

run "a_region_as_a_zone" {
  # says: private_subnets: map at least one availability zone to a subnet in it
  command         = plan
  expect_failures = [var.private_subnets]
  variables {
    private_subnets = { eu-central-1 = "subnet-0a" }
  }
}

run "on_the_internet_without_tls" {
  # says: public: a load balancer on the internet needs TLS. Set certificate_arn
  command         = plan
  expect_failures = [var.public]
  variables {
    public        = true
    allowed_cidrs = ["203.0.113.0/24"]
  }
}

run "on_the_internet_for_nobody" {
  # says: public: nobody could call. Name the networks of your clients in allowed_cidrs
  command         = plan
  expect_failures = [var.public]
  variables {
    public          = true
    certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
  }
}

run "a_private_image_that_nobody_may_pull" {
  # says: Name the repository's ARN here, so that nodes and routers may pull it.
  command         = plan
  expect_failures = [var.ecr_repository_arns]
  variables {
    image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/fastpaca:v1"
  }
}

run "a_router_that_fargate_does_not_sell" {
  # says: router_size: Fargate knows 256, 512, 1024, 2048, 4096, 8192 or 16384 cpu
  command         = plan
  expect_failures = [var.router_size]
  variables {
    router_size = { cpu = 300, memory = 1024 }
  }
}

run "a_volume_that_gp3_does_not_have" {
  # says: data_volume: gp3 takes 3000 to 16000 iops and 125 to 1000 MiB/s; give it at least 10 GiB.
  command         = plan
  expect_failures = [var.data_volume]
  variables {
    data_volume = { iops = 100 }
  }
}

run "logs_kept_for_a_time_that_cloudwatch_does_not_know" {
  # says: observability: log_retention_days must be one of those CloudWatch knows
  command         = plan
  expect_failures = [var.observability]
  variables {
    observability = { log_retention_days = 31 }
  }
}

run "a_drained_node_that_never_was" {
  # says: drained_data_nodes names nodes that never existed: d9.
  command         = plan
  expect_failures = [terraform_data.placement_guard]
  variables {
    drained_data_nodes = ["d9"]
  }
}

run "an_unknown_processor" {
  # says: architecture: use arm64 or x86_64.
  command         = plan
  expect_failures = [var.architecture]
  variables {
    architecture = "riscv64"
  }
}

run "a_secret_among_the_settings" {
  # says: environment: secrets and addresses have inputs of their own.
  command         = plan
  expect_failures = [var.environment]
  variables {
    environment = { FASTPACA_TOKEN = "sixteen-or-more-characters" }
  }
}

run "a_certificate_in_the_place_of_its_secret" {
  # says: tls: secret_arn must be the ARN of a secret
  command         = plan
  expect_failures = [var.tls]
  variables {
    tls = { secret_arn = "-----BEGIN CERTIFICATE-----" }
  }
}
