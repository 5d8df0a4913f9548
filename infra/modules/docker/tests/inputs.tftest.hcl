# Bad input is refused with a sentence that says what to do, before anything is
# asked of an engine.

mock_provider "docker" {}
mock_provider "random" {}

run "an_even_number_of_control_members" {
  command         = plan
  expect_failures = [var.control_members]
  variables {
    control_members = 2
  }
}

run "no_data_node" {
  command         = plan
  expect_failures = [var.data_nodes]
  variables {
    data_nodes = 0
  }
}

run "half_a_data_node" {
  command         = plan
  expect_failures = [var.data_nodes]
  variables {
    data_nodes = 3.5
  }
}

run "fewer_data_nodes_than_replicas" {
  command         = plan
  expect_failures = [var.replication_factor]
  variables {
    data_nodes = 2
  }
}

run "an_even_replication_factor" {
  command         = plan
  expect_failures = [var.replication_factor]
  variables {
    replication_factor = 2
  }
}

run "no_router" {
  command         = plan
  expect_failures = [var.routers]
  variables {
    routers = 0
  }
}

run "an_external_archive_without_its_secret" {
  command         = plan
  expect_failures = [var.archive]
  variables {
    archive = "external"
  }
}

run "a_secret_that_nobody_uses" {
  command         = plan
  expect_failures = [var.archive]
  variables {
    archive_url = "postgres://u:p@h/d"
  }
}

run "an_archive_that_is_no_postgres" {
  command         = plan
  expect_failures = [var.archive_url]
  variables {
    archive     = "external"
    archive_url = "mysql://h/d"
  }
}

run "an_unknown_kind_of_archive" {
  command         = plan
  expect_failures = [var.archive]
  variables {
    archive = "rds"
  }
}

run "a_short_token" {
  command         = plan
  expect_failures = [var.token]
  variables {
    token = "short"
  }
}

run "an_empty_token" {
  command         = plan
  expect_failures = [var.token]
  variables {
    token = ""
  }
}

run "a_name_that_is_no_name" {
  command         = plan
  expect_failures = [var.name]
  variables {
    name = "Fast_Paca"
  }
}

run "a_collector_that_is_no_url" {
  command         = plan
  expect_failures = [var.observability]
  variables {
    observability = { otlp_endpoint = "collector:4318" }
  }
}

run "a_drained_node_that_is_no_node" {
  command         = plan
  expect_failures = [var.drained_data_nodes]
  variables {
    drained_data_nodes = ["node 4"]
  }
}

run "a_drained_node_that_never_was" {
  command         = plan
  expect_failures = [terraform_data.placement_guard]
  variables {
    drained_data_nodes = ["d9"]
  }
}

run "a_port_without_room_for_all_routers" {
  command         = plan
  expect_failures = [var.port]
  variables {
    port    = 65535
    routers = 2
  }
}

run "an_address_that_is_none" {
  command         = plan
  expect_failures = [var.bind_address]
  variables {
    bind_address = "localhost"
  }
}

run "a_secret_among_the_settings" {
  command         = plan
  expect_failures = [var.environment]
  variables {
    environment = { FASTPACA_TOKEN = "sixteen-or-more-characters" }
  }
}
