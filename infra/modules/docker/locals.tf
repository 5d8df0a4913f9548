locals {
  control_port = 7401
  data_port    = 7501
  ops_port     = 9400
  router_port  = 4000

  # Names are fixed and never used again: the first data_nodes of d1, d2, … that
  # were not drained. A change of the number renames nothing.
  control_names = [for i in range(var.control_members) : "c${i + 1}"]
  data_names = slice(
    [for i in range(var.data_nodes + length(var.drained_data_nodes)) : "d${i + 1}" if !contains(var.drained_data_nodes, "d${i + 1}")],
    0, var.data_nodes
  )
  router_names = [for i in range(var.routers) : "r${i + 1}"]

  control_addresses = join(",", [for c in local.control_names : "${c}:${local.control_port}"])
  peers             = join(",", [for c in local.control_names : "${c}=${c}:${local.control_port}"])

  token = var.token == null ? random_password.token[0].result : var.token

  archive_url = {
    none     = null
    external = var.archive_url
    managed  = var.archive == "managed" ? "postgres://fastpaca:${random_password.archive[0].result}@postgres:5432/fastpaca?sslmode=disable" : null
  }[var.archive]

  # What every process is told, whatever the size of the cluster.
  environment = concat(
    [
      "FASTPACA_TOKEN=${local.token}",
      "FASTPACA_CONTROL=${local.control_addresses}",
      "FASTPACA_OPS_LISTEN=0.0.0.0:${local.ops_port}",
      "FASTPACA_LOG_FORMAT=json",
    ],
    [for name, value in var.environment : "${name}=${value}"],
    var.observability.otlp_endpoint == null ? [] : ["OTEL_EXPORTER_OTLP_ENDPOINT=${var.observability.otlp_endpoint}"],
    var.tls == null ? [] : [
      "FASTPACA_TLS_CERT=/tls/cert.pem",
      "FASTPACA_TLS_KEY=/tls/key.pem",
      "FASTPACA_TLS_CA=/tls/ca.pem",
      "FASTPACA_TLS_SERVER_NAME=${var.tls.server_name}",
    ],
  )

  # Mounted, so that the key is in no state and no image.
  tls_mounts = var.tls == null ? [] : [var.tls.directory]

  labels = merge(var.labels, { "fastpaca.cluster" = var.name })

  ops_url = "http://127.0.0.1:${local.ops_port}"

  # Handing over leadership and finishing requests takes up to 15 s.
  stop_seconds = 30
}

locals {
  # An address to listen on is not always one to call.
  reachable = var.bind_address == "0.0.0.0" ? "127.0.0.1" : var.bind_address
}
