variable "name" {
  description = "Name of the cluster, and prefix of everything it is made of."
  type        = string
  default     = "fastpaca"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name: use 2 to 24 lower-case letters, digits and hyphens, beginning with a letter and ending with a letter or digit."
  }
}

variable "image" {
  description = "Image of fastpaca: a name with a tag, or with a digest. Roll a change out one node at a time, as infra/README.md shows."
  type        = string
  default     = "ghcr.io/fastpaca/fastpaca:latest"

  validation {
    condition     = can(regex("^[^[:space:]]+$", var.image))
    error_message = "image: give the name of an image, such as ghcr.io/fastpaca/fastpaca:latest or the one you built with infra/Dockerfile."
  }
}

variable "control_members" {
  description = "Members of the control plane: 1, 3 or 5. Fixed once the cluster exists."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3, 5], var.control_members)
    error_message = "control_members: use 1, 3 or 5. An even number survives no more failures than one less: take 3 to survive the loss of one, 5 for two."
  }
}

variable "data_nodes" {
  description = "Data nodes. Raise it and run `fastpaca cluster rebalance` to grow; to shrink, drain a node first and name it in drained_data_nodes."
  type        = number
  default     = 3

  validation {
    condition     = var.data_nodes >= 1 && var.data_nodes <= 500 && floor(var.data_nodes) == var.data_nodes
    error_message = "data_nodes: use a whole number from 1 to 500. Messages live on data nodes, so there must be one; take 3 to survive the loss of a machine. To remove the cluster, run `terraform destroy`."
  }
}

variable "drained_data_nodes" {
  description = "Names of data nodes that `fastpaca cluster drain NAME --yes --wait` has emptied. Only these may be removed, and their names are not used again: leave them here."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for n in var.drained_data_nodes : can(regex("^d[1-9][0-9]*$", n))])
    error_message = "drained_data_nodes: use the names of data nodes, such as [\"d4\"]. `fastpaca cluster nodes` lists them."
  }
}

variable "replication_factor" {
  description = "Replicas of each group: 1, 3 or 5. Groups are placed once that many data nodes are there. Fixed once the cluster exists."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3, 5], var.replication_factor)
    error_message = "replication_factor: use 1, 3 or 5. With 3, an acknowledged message survives the loss of a machine; with 1 it does not."
  }

  validation {
    condition     = var.data_nodes >= var.replication_factor
    error_message = "replication_factor: each replica of a group needs a data node of its own. Raise data_nodes to at least the replication factor, or set replication_factor = 1 for a cluster that keeps one copy."
  }
}

variable "routers" {
  description = "Routers, each with a port of its own from port upwards."
  type        = number
  default     = 2

  validation {
    condition     = var.routers >= 1 && var.routers <= 50 && floor(var.routers) == var.routers
    error_message = "routers: use a whole number from 1 to 50. Clients reach the cluster through a router only."
  }
}

variable "archive" {
  description = "Postgres that messages are archived to: none, managed (a container beside the cluster) or external (archive_url says where)."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "managed", "external"], var.archive)
    error_message = "archive: use none, managed or external."
  }

  validation {
    condition     = var.archive != "external" || var.archive_url != null
    error_message = "archive: an external archive needs its secret. Set archive_url to postgres://USER:PASSWORD@HOST:5432/DATABASE, best through the environment variable TF_VAR_archive_url, or set archive = \"managed\"."
  }

  validation {
    condition     = var.archive == "external" || var.archive_url == null
    error_message = "archive: archive_url is set but would not be used. Set archive = \"external\", or remove archive_url."
  }
}

variable "observability" {
  description = "otlp_endpoint: where all processes find an OpenTelemetry collector, such as http://collector:4318; null for none. Every process serves Prometheus metrics on port 9400 of the network in any case; dashboards starts a Prometheus and a Grafana with the rules and the dashboard of infra/observability, on prometheus_port and grafana_port of bind_address."
  type = object({
    otlp_endpoint    = optional(string)
    dashboards       = optional(bool, false)
    prometheus_port  = optional(number, 9090)
    grafana_port     = optional(number, 3000)
    prometheus_image = optional(string, "prom/prometheus:v3.5.0")
    grafana_image    = optional(string, "grafana/grafana:12.1.1")
  })
  default = {}

  validation {
    condition     = var.observability.otlp_endpoint == null || can(regex("^https?://[^[:space:]'\"]+$", var.observability.otlp_endpoint))
    error_message = "observability: otlp_endpoint must be a URL such as http://collector:4318, or null."
  }
}

variable "tls" {
  description = "Mutual TLS between the processes; null for none. directory, on the engine's machine, holds cert.pem, key.pem and ca.pem, readable by user 65532; server_name is a name that the certificate is valid for. All processes share the certificate and must be restarted together when TLS is turned on or off."
  type = object({
    directory   = string
    server_name = optional(string, "fastpaca")
  })
  default = null

  validation {
    condition     = var.tls == null || try(startswith(var.tls.directory, "/") && can(regex("^[A-Za-z0-9.-]+$", var.tls.server_name)), false)
    error_message = "tls: directory must be an absolute path on the machine of the engine, with cert.pem, key.pem and ca.pem in it, and server_name a host name in the certificate. infra/README.md shows how to make them."
  }
}

variable "environment" {
  description = "Further environment of all processes, such as { GOMEMLIMIT = \"5GiB\", FASTPACA_LOG_LEVEL = \"debug\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setintersection(keys(var.environment), ["FASTPACA_TOKEN", "FASTPACA_ARCHIVE_URL", "FASTPACA_CONTROL", "FASTPACA_ID"])) == 0
    error_message = "environment: secrets and addresses have inputs of their own. Remove FASTPACA_TOKEN, FASTPACA_ARCHIVE_URL, FASTPACA_CONTROL and FASTPACA_ID, and see the module's README."
  }

  validation {
    condition     = alltrue([for name, value in var.environment : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) && can(regex("^[^'\n]*$", value))])
    error_message = "environment: names are letters, digits and underscores, and values one line without single quotes."
  }
}

variable "token" {
  description = "Secret shared by all processes of the cluster; one is drawn when it is null. It is in the state in clear, as all of a container's environment is."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.token == null || try(length(var.token) >= 16, false)
    error_message = "token: use at least 16 characters, for example from `openssl rand -hex 32`, or leave it null to have one drawn."
  }
}

variable "archive_url" {
  description = "URL of the external archive, credentials included."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.archive_url == null || can(regex("^postgres(ql)?://", var.archive_url))
    error_message = "archive_url: give postgres://USER:PASSWORD@HOST:5432/DATABASE."
  }
}

variable "postgres_image" {
  description = "Image of the managed archive."
  type        = string
  default     = "postgres:17"
}

variable "port" {
  description = "Port of the first router on bind_address; the others follow."
  type        = number
  default     = 4000

  validation {
    condition     = var.port >= 1 && var.port + var.routers - 1 <= 65535 && floor(var.port) == var.port
    error_message = "port: use a port from 1 to 65535 that leaves one for each router."
  }
}

variable "bind_address" {
  description = "Address of this machine on which the routers listen. The public API has no authentication: open it to others only behind a proxy that has."
  type        = string
  default     = "127.0.0.1"

  validation {
    condition     = can(cidrhost("${var.bind_address}/32", 0))
    error_message = "bind_address: give an IPv4 address of this machine: 127.0.0.1 for this machine only, 0.0.0.0 for everybody who can reach it."
  }
}

variable "keep_image" {
  description = "Leave the image on the machine when the cluster is destroyed."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels of all containers and volumes."
  type        = map(string)
  default     = {}
}

variable "check_removals" {
  description = "Ask the engine which data nodes exist and refuse a plan that removes one which is not in drained_data_nodes."
  type        = bool
  default     = true
}
