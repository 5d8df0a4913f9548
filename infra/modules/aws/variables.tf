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
  description = "Image of fastpaca: a name with a tag, or with a digest. Nodes take it over when the upgrade document of the outputs is run; routers at apply."
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
  description = "Routers at least running, behind the load balancer. routers_max says how many load may make of them."
  type        = number
  default     = 2

  validation {
    condition     = var.routers >= 1 && var.routers <= 50 && floor(var.routers) == var.routers
    error_message = "routers: use a whole number from 1 to 50. Clients reach the cluster through a router only."
  }
}

variable "archive" {
  description = "Postgres that messages are archived to: none, managed (RDS) or external (archive_url_secret_arn says where)."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "managed", "external"], var.archive)
    error_message = "archive: use none, managed or external."
  }

  validation {
    condition     = var.archive != "external" || var.archive_url_secret_arn != null
    error_message = "archive: an external archive needs its secret. Put postgres://USER:PASSWORD@HOST:5432/DATABASE into a secret of Secrets Manager and its ARN into archive_url_secret_arn, or set archive = \"managed\"."
  }

  validation {
    condition     = var.archive == "external" || var.archive_url_secret_arn == null
    error_message = "archive: archive_url_secret_arn is set but would not be used. Set archive = \"external\", or remove it."
  }

  validation {
    condition     = var.archive != "managed" || length(var.private_subnets) >= 2
    error_message = "archive: RDS needs subnets in two zones. Add one to private_subnets, or use an external archive."
  }
}

variable "observability" {
  description = "otlp_endpoint: where all processes find an OpenTelemetry collector, such as http://collector:4318; null for none. log_retention_days: how long CloudWatch keeps logs. Every process serves Prometheus metrics on port 9400 in any case; metrics_security_group_ids may reach it."
  type = object({
    otlp_endpoint              = optional(string)
    log_retention_days         = optional(number, 30)
    metrics_security_group_ids = optional(set(string), [])
  })
  default = {}

  validation {
    condition     = var.observability.otlp_endpoint == null || can(regex("^https?://[^[:space:]'\"]+$", var.observability.otlp_endpoint))
    error_message = "observability: otlp_endpoint must be a URL such as http://collector:4318, or null."
  }

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.observability.log_retention_days)
    error_message = "observability: log_retention_days must be one of those CloudWatch knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, …"
  }
}

variable "tls" {
  description = "Mutual TLS between the processes; null for none. secret_arn is a secret of Secrets Manager with a JSON object of PEM texts, {\"cert\": …, \"key\": …, \"ca\": …}; server_name is a name that the certificate is valid for; init_image, with a shell, writes the files of a router before it starts. All processes share the certificate and must be restarted together when TLS is turned on or off."
  type = object({
    secret_arn  = string
    server_name = optional(string, "fastpaca")
    init_image  = optional(string, "public.ecr.aws/docker/library/busybox:1.37")
  })
  default = null

  validation {
    condition     = var.tls == null || try(can(regex("^arn:aws[a-z-]*:secretsmanager:", var.tls.secret_arn)) && can(regex("^[A-Za-z0-9.-]+$", var.tls.server_name)), false)
    error_message = "tls: secret_arn must be the ARN of a secret, arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME, that holds cert, key and ca, and server_name a host name in the certificate. infra/README.md shows how to make them; key and certificate themselves do not belong here, they would be in the state."
  }
}

variable "environment" {
  description = "Further environment of all processes, such as { GOMEMLIMIT = \"5GiB\", FASTPACA_LOG_LEVEL = \"debug\" }. Nodes take it over when they are replaced."
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

variable "vpc_id" {
  description = "VPC that the cluster stands in."
  type        = string

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc_id))
    error_message = "vpc_id: give the id of a VPC, such as vpc-0123456789abcdef0. The example aws-quickstart makes one."
  }
}

variable "private_subnets" {
  description = "Subnets of nodes and routers by availability zone, such as { eu-central-1a = \"subnet-…\" }; with a way to Secrets Manager, SSM, CloudWatch and the image (NAT or endpoints). Node N stands in the Nth zone, going round. Do not change while the cluster exists."
  type        = map(string)

  validation {
    condition     = length(var.private_subnets) >= 1 && alltrue([for az, id in var.private_subnets : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$", az)) && can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "private_subnets: map at least one availability zone to a subnet in it, such as { eu-central-1a = \"subnet-0123456789abcdef0\" }. Take three zones to survive the loss of one."
  }

  validation {
    condition     = length(distinct([for az in keys(var.private_subnets) : substr(az, 0, length(az) - 1)])) == 1
    error_message = "private_subnets: all zones must belong to one region. Raft waits for the network on every append; run one cluster per region."
  }
}

variable "load_balancer_subnets" {
  description = "Subnets of the load balancer, in at least two zones: private ones, or public ones with public = true."
  type        = list(string)

  validation {
    condition     = length(var.load_balancer_subnets) >= 2 && alltrue([for id in var.load_balancer_subnets : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "load_balancer_subnets: an application load balancer needs subnets in at least two zones."
  }
}

variable "public" {
  description = "Put the load balancer on the internet. The public API has no authentication of its own: needs certificate_arn, and allowed_cidrs says who may call."
  type        = bool
  default     = false

  validation {
    condition     = !var.public || var.certificate_arn != null
    error_message = "public: a load balancer on the internet needs TLS. Set certificate_arn to a certificate of ACM in this region, or leave public = false."
  }

  validation {
    condition     = !var.public || length(var.allowed_cidrs) > 0
    error_message = "public: nobody could call. Name the networks of your clients in allowed_cidrs; the API has no authentication of its own, so do not take 0.0.0.0/0 unless a proxy in front of it authenticates."
  }
}

variable "certificate_arn" {
  description = "Certificate of ACM for the load balancer; without one it serves HTTP, inside the VPC only."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "certificate_arn: give the ARN of an ACM certificate, arn:aws:acm:REGION:ACCOUNT:certificate/ID."
  }
}

variable "allowed_cidrs" {
  description = "Networks that may call the load balancer."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.allowed_cidrs : can(cidrhost(c, 0))])
    error_message = "allowed_cidrs: use CIDR blocks such as 10.0.0.0/16."
  }
}

variable "allowed_security_group_ids" {
  description = "Security groups whose members may call the load balancer."
  type        = set(string)
  default     = []
}

variable "routers_max" {
  description = "Routers at most."
  type        = number
  default     = 10

  validation {
    condition     = var.routers_max >= var.routers
    error_message = "routers_max: must not be less than routers."
  }
}

variable "router_size" {
  description = "cpu (1024 = one vCPU) and memory in MiB of a router, as Fargate pairs them."
  type        = object({ cpu = number, memory = number })
  default     = { cpu = 512, memory = 1024 }

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.router_size.cpu) && var.router_size.memory >= 2 * var.router_size.cpu && var.router_size.memory <= 8 * var.router_size.cpu
    error_message = "router_size: Fargate knows 256, 512, 1024, 2048, 4096, 8192 or 16384 cpu, with 2 to 8 MiB of memory per cpu unit."
  }
}

variable "architecture" {
  description = "Processor of nodes and routers: arm64 or x86_64. The image must have it, and the instance types."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture: use arm64 or x86_64."
  }
}

variable "data_instance_type" {
  description = "Instance type of data nodes."
  type        = string
  default     = "m7g.large"
}

variable "control_instance_type" {
  description = "Instance type of control members: small, they are not on the path of messages."
  type        = string
  default     = "t4g.small"
}

variable "data_volume" {
  description = "EBS volume of each data node. size in GiB may grow; throughput in MiB/s. final_snapshot keeps a copy when a volume is destroyed."
  type = object({
    size           = optional(number, 100)
    iops           = optional(number, 3000)
    throughput     = optional(number, 125)
    final_snapshot = optional(bool, false)
  })
  default = {}

  validation {
    condition     = var.data_volume.size >= 10 && var.data_volume.iops >= 3000 && var.data_volume.iops <= 16000 && var.data_volume.throughput >= 125 && var.data_volume.throughput <= 1000
    error_message = "data_volume: gp3 takes 3000 to 16000 iops and 125 to 1000 MiB/s; give it at least 10 GiB."
  }
}

variable "ami_id" {
  description = "Amazon Linux 2023 for all nodes; null takes the newest when a node is made. A newer one replaces no node."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null || can(regex("^ami-[0-9a-f]+$", var.ami_id))
    error_message = "ami_id: give the id of an Amazon Linux 2023 image, such as ami-0123456789abcdef0, or null."
  }
}

variable "token_secret_arn" {
  description = "Secret of Secrets Manager with the token all processes share, at least 16 characters; null has one drawn, which never is in the state."
  type        = string
  default     = null

  validation {
    condition     = var.token_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:", var.token_secret_arn))
    error_message = "token_secret_arn: give the ARN of a secret, arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME, or leave it null to have one drawn."
  }
}

variable "token_version" {
  description = "Raise it to draw another token. All processes must be restarted to take it over; until they are, old and new refuse each other."
  type        = number
  default     = 1
}

variable "archive_url_secret_arn" {
  description = "Secret of Secrets Manager with the URL of the external archive."
  type        = string
  default     = null

  validation {
    condition     = var.archive_url_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:", var.archive_url_secret_arn))
    error_message = "archive_url_secret_arn: give the ARN of a secret, arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME."
  }
}

variable "archive_database" {
  description = "The managed archive: instance class, storage in GiB, whether a second zone stands by, and whether it may be destroyed without a final snapshot. Raise password_version to change its password."
  type = object({
    instance_class      = optional(string, "db.t4g.medium")
    storage             = optional(number, 50)
    multi_az            = optional(bool, true)
    deletion_protection = optional(bool, true)
    skip_final_snapshot = optional(bool, false)
    password_version    = optional(number, 1)
  })
  default = {}
}

variable "kms_key_arn" {
  description = "KMS key for volumes, logs, secrets and the archive; null uses the keys that AWS keeps for the account. Its policy must allow CloudWatch Logs of the region."
  type        = string
  default     = null
}

variable "ecr_repository_arns" {
  description = "Private ECR repositories the image comes from; empty when it is public."
  type        = set(string)
  default     = []

  validation {
    condition     = length(regexall("\\.dkr\\.ecr\\.", var.image)) == 0 || length(var.ecr_repository_arns) > 0
    error_message = "ecr_repository_arns: image is in a private ECR repository. Name the repository's ARN here, so that nodes and routers may pull it."
  }
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}

variable "check_removals" {
  description = "Ask EC2 which data nodes exist and refuse a plan that removes one which is not in drained_data_nodes. Only a plan that must do without credentials turns it off."
  type        = bool
  default     = true
}
