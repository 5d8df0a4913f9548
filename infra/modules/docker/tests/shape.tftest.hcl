# What is made of the inputs, with an engine that only pretends.

mock_provider "docker" {}
mock_provider "random" {}

run "defaults" {
  command = plan

  assert {
    condition     = tolist(keys(docker_container.control)) == tolist(["c1", "c2", "c3"]) && tolist(keys(docker_container.data)) == tolist(["d1", "d2", "d3"]) && tolist(keys(docker_container.router)) == tolist(["r1", "r2"])
    error_message = "three control members, three data nodes and two routers are the default"
  }
  assert {
    condition     = docker_container.control["c2"].command == tolist(["control", "--id=c2", "--listen=0.0.0.0:7401", "--peers=c1=c1:7401,c2=c2:7401,c3=c3:7401", "--bootstrap-expect=3", "--replication-factor=3"])
    error_message = "the flags of a control member"
  }
  assert {
    condition     = docker_container.data["d1"].command == tolist(["data", "--id=d1", "--listen=0.0.0.0:7501", "--advertise=d1:7501"])
    error_message = "the flags of a data node"
  }
  assert {
    condition     = alltrue([for c in docker_container.router : c.ports[0].ip == "127.0.0.1"]) && [for c in docker_container.router : c.ports[0].external] == [4000, 4001]
    error_message = "routers are published on this machine only, from the port upwards"
  }
  assert {
    condition     = alltrue([for c in merge(docker_container.control, docker_container.data) : length(c.ports) == 0])
    error_message = "nothing but routers is published"
  }
  assert {
    condition     = alltrue([for c in merge(docker_container.control, docker_container.data, docker_container.router) : c.read_only && one(c.capabilities).drop == toset(["ALL"])])
    error_message = "containers run without capabilities, on a read-only root"
  }
  assert {
    condition     = length(docker_container.postgres) == 0 && length(docker_container.prometheus) == 0 && length(docker_container.grafana) == 0
    error_message = "no archive and no dashboards unless asked for"
  }
}

run "a_larger_cluster_changes_no_flag" {
  command = plan
  variables {
    data_nodes = 5
  }

  assert {
    condition     = docker_container.data["d1"].command == tolist(["data", "--id=d1", "--listen=0.0.0.0:7501", "--advertise=d1:7501"])
    error_message = "the flags of a data node depend on the number of them"
  }
  assert {
    condition     = strcontains(join(" ", docker_container.control["c1"].command), "--bootstrap-expect=3 ")
    error_message = "the flags of a control member depend on the number of data nodes"
  }
}

run "a_drained_node_gives_its_place_to_another" {
  command = plan
  variables {
    data_nodes         = 3
    drained_data_nodes = ["d2"]
  }

  assert {
    condition     = tolist(keys(docker_container.data)) == tolist(["d1", "d3", "d4"])
    error_message = "removing a node must rename no other, and its name must not come back"
  }
}

run "a_node_that_may_hold_replicas_stays" {
  # says: This plan would destroy data nodes that may hold replicas: d4.
  # says: cluster drain NAME --yes --wait
  # says: add its name to drained_data_nodes once that has succeeded. To keep the nodes, set data_nodes back.
  command = plan
  override_module {
    target  = module.existing
    outputs = { data_nodes = ["d1", "d2", "d3", "d4"] }
  }
  variables {
    data_nodes = 3
  }
  expect_failures = [terraform_data.placement_guard]
}

run "a_drained_node_may_go" {
  command = plan
  override_module {
    target  = module.existing
    outputs = { data_nodes = ["d1", "d2", "d3", "d4"] }
  }
  variables {
    data_nodes         = 3
    drained_data_nodes = ["d4"]
  }

  assert {
    condition     = tolist(keys(docker_container.data)) == tolist(["d1", "d2", "d3"])
    error_message = "a drained node may be removed"
  }
}

run "a_managed_archive" {
  command = apply
  variables {
    archive = "managed"
  }

  assert {
    condition     = length(docker_container.postgres) == 1 && anytrue([for e in docker_container.data["d1"].env : startswith(e, "FASTPACA_ARCHIVE_URL=postgres://fastpaca:")])
    error_message = "data nodes are told where the archive is"
  }
  assert {
    condition     = !anytrue([for e in docker_container.router["r1"].env : startswith(e, "FASTPACA_ARCHIVE_URL=")])
    error_message = "only data nodes hold the archive's password"
  }
  assert {
    condition     = output.endpoint == "http://127.0.0.1:4000" && output.admin_endpoint == "c1:7401,c2:7401,c3:7401" && length(output.nodes) == 8
    error_message = "the outputs"
  }
}

run "the_smallest" {
  command = apply
  variables {
    control_members    = 1
    data_nodes         = 1
    replication_factor = 1
    routers            = 1
    token              = "sixteen-or-more-characters"
    observability      = { otlp_endpoint = "http://collector:4318" }
    environment        = { GOMEMLIMIT = "5GiB" }
  }

  assert {
    condition     = length(output.nodes) == 3 && contains(docker_container.data["d1"].env, "FASTPACA_TOKEN=sixteen-or-more-characters") && contains(docker_container.data["d1"].env, "GOMEMLIMIT=5GiB") && contains(docker_container.data["d1"].env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318")
    error_message = "one of each, with the given token and collector"
  }
}

run "tls_between_processes" {
  command = plan
  variables {
    tls = { directory = "/etc/fastpaca/tls" }
  }

  assert {
    condition = alltrue([
      for c in merge(docker_container.control, docker_container.data, docker_container.router) :
      contains(c.env, "FASTPACA_TLS_CERT=/tls/cert.pem") && contains(c.env, "FASTPACA_TLS_KEY=/tls/key.pem") && contains(c.env, "FASTPACA_TLS_CA=/tls/ca.pem") && contains(c.env, "FASTPACA_TLS_SERVER_NAME=fastpaca")
      && anytrue([for v in c.volumes : v.host_path == "/etc/fastpaca/tls" && v.container_path == "/tls" && coalesce(v.read_only, false)])
    ])
    error_message = "every process is told where its certificate is, and has it mounted read-only"
  }
}

run "dashboards" {
  command = apply
  variables {
    observability = { dashboards = true }
  }

  assert {
    condition     = length(docker_container.prometheus) == 1 && length(docker_container.grafana) == 1 && output.dashboards.grafana == "http://127.0.0.1:3000"
    error_message = "Prometheus and Grafana are there when asked for"
  }
  assert {
    condition     = yamldecode(output.prometheus_config).scrape_configs[0].static_configs[0].targets == ["c1:9400", "c2:9400", "c3:9400", "d1:9400", "d2:9400", "d3:9400", "r1:9400", "r2:9400"]
    error_message = "Prometheus scrapes every process"
  }
  assert {
    condition     = anytrue([for u in docker_container.prometheus[0].upload : u.file == "/etc/prometheus/rules.yaml" && strcontains(u.content, "alert:")]) && anytrue([for u in docker_container.grafana[0].upload : endswith(u.file, "fastpaca.json")])
    error_message = "the rules and the dashboard are those of infra/observability"
  }
}
