# Bad input is refused with a sentence that says what to do (after "says", which
# infra/refusals compares with what is printed), before anything is
# asked of an engine.

mock_provider "docker" {}
mock_provider "random" {}

run "an_even_number_of_control_members" {
  # says: control_members: use 1, 3 or 5. An even number survives no more failures than one less: take 3 to survive the loss of one, 5 for two.
  command         = plan
  expect_failures = [var.control_members]
  variables {
    control_members = 2
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

run "half_a_data_node" {
  # says: data_nodes: use a whole number from 1 to 500.
  command         = plan
  expect_failures = [var.data_nodes]
  variables {
    data_nodes = 3.5
  }
}

run "fewer_data_nodes_than_replicas" {
  # says: Raise data_nodes to at least the replication factor, or set replication_factor = 1
  command         = plan
  expect_failures = [var.replication_factor]
  variables {
    data_nodes = 2
  }
}

run "an_even_replication_factor" {
  # says: replication_factor: use 1, 3 or 5.
  command         = plan
  expect_failures = [var.replication_factor]
  variables {
    replication_factor = 2
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

run "an_external_archive_without_its_secret" {
  # says: archive: an external archive needs its secret.
  # says: or set archive = "managed"
  command         = plan
  expect_failures = [var.archive]
  variables {
    archive = "external"
  }
}

run "a_secret_that_nobody_uses" {
  # says: Set archive = "external", or remove archive_url.
  command         = plan
  expect_failures = [var.archive]
  variables {
    archive_url = "postgres://u:p@h/d"
  }
}

run "an_archive_that_is_no_postgres" {
  # says: archive_url: give postgres://USER:PASSWORD@HOST:5432/DATABASE.
  command         = plan
  expect_failures = [var.archive_url]
  variables {
    archive     = "external"
    archive_url = "mysql://h/d"
  }
}

run "an_unknown_kind_of_archive" {
  # says: archive: use none, managed or external.
  command         = plan
  expect_failures = [var.archive]
  variables {
    archive = "rds"
  }
}

run "a_short_token" {
  # says: token: use at least 16 characters, for example from `openssl rand -hex 32`, or leave it null to have one drawn.
  command         = plan
  expect_failures = [var.token]
  variables {
    token = "short"
  }
}

run "an_empty_token" {
  # says: token: use at least 16 characters
  command         = plan
  expect_failures = [var.token]
  variables {
    token = ""
  }
}

run "a_name_that_is_no_name" {
  # says: name: use 2 to 24 lower-case letters, digits and hyphens
  command         = plan
  expect_failures = [var.name]
  variables {
    name = "Fast_Paca"
  }
}

run "a_collector_that_is_no_url" {
  # says: observability: otlp_endpoint must be a URL such as http://collector:4318, or null.
  command         = plan
  expect_failures = [var.observability]
  variables {
    observability = { otlp_endpoint = "collector:4318" }
  }
}

run "a_drained_node_that_is_no_node" {
  # says: drained_data_nodes: use the names of data nodes, such as ["d4"].
  command         = plan
  expect_failures = [var.drained_data_nodes]
  variables {
    drained_data_nodes = ["node 4"]
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

run "a_port_without_room_for_all_routers" {
  # says: port: use a port from 1 to 65535 that leaves one for each router.
  command         = plan
  expect_failures = [var.port]
  variables {
    port    = 65535
    routers = 2
  }
}

run "an_address_that_is_none" {
  # says: bind_address: give an IPv4 address of this machine
  command         = plan
  expect_failures = [var.bind_address]
  variables {
    bind_address = "localhost"
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

run "certificates_in_a_relative_place" {
  # says: tls: directory must be an absolute path on the machine of the engine
  command         = plan
  expect_failures = [var.tls]
  variables {
    tls = { directory = "certificates" }
  }
}
