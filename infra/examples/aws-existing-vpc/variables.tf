variable "region" {
  description = "Region of AWS."
  type        = string
  default     = "eu-central-1"

  validation {
    condition = contains([
      "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2",
      "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7",
      "ca-central-1", "ca-west-1", "cn-north-1", "cn-northwest-1", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2",
      "eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1", "mx-central-1", "sa-east-1",
      "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1", "us-west-1", "us-west-2",
    ], var.region)
    error_message = "region: this is no region of AWS that this example knows. Use one such as eu-central-1 or us-east-1 (`aws account list-regions` shows yours); add a newer one to the list in variables.tf."
  }
}

variable "name" {
  description = "Name of the cluster."
  type        = string
  default     = "fastpaca"
}

variable "image" {
  description = "Image to run. One in ECR needs ecr_repository_arns."
  type        = string
  default     = "ghcr.io/fastpaca/fastpaca:latest"
}

variable "ecr_repository_arns" {
  description = "Private ECR repositories the image comes from."
  type        = set(string)
  default     = []
}

variable "control_members" {
  description = "Members of the control plane: 1, 3 or 5."
  type        = number
  default     = 3
}

variable "data_nodes" {
  description = "Data nodes."
  type        = number
  default     = 3
}

variable "drained_data_nodes" {
  description = "Names of data nodes that were drained and may go."
  type        = set(string)
  default     = []
}

variable "routers" {
  description = "Routers at least."
  type        = number
  default     = 2
}

variable "archive" {
  description = "none, or managed for RDS."
  type        = string
  default     = "none"
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}

variable "ami_id" {
  description = "Amazon Linux 2023 for the nodes; null takes the newest."
  type        = string
  default     = null
}

variable "offline" {
  description = "Plan without an account: asks AWS for nothing. Set zones (or subnets) and ami_id as well."
  type        = bool
  default     = false
}

variable "vpc_id" {
  description = "Your VPC; null takes the default VPC of the region."
  type        = string
  default     = null
}

variable "private_subnets" {
  description = "Private subnets by zone, with a way out (NAT). Null makes them, and a NAT gateway, in the upper half of the VPC's network."
  type        = map(string)
  default     = null

  validation {
    condition     = var.private_subnets == null || var.vpc_id != null
    error_message = "private_subnets: say which VPC they are in, with vpc_id."
  }
}

variable "load_balancer_subnets" {
  description = "Subnets of the load balancer; null takes the private ones."
  type        = list(string)
  default     = null
}

variable "certificate_arn" {
  description = "Certificate of ACM for the load balancer."
  type        = string
  default     = null
}

variable "public" {
  description = "Put the load balancer on the internet; needs certificate_arn, allowed_cidrs and public load_balancer_subnets."
  type        = bool
  default     = false
}

variable "allowed_cidrs" {
  description = "Networks of your clients."
  type        = set(string)
  default     = []
}

variable "allowed_security_group_ids" {
  description = "Security groups of your clients."
  type        = set(string)
  default     = []
}

variable "otlp_endpoint" {
  description = "OpenTelemetry collector, such as http://10.0.0.5:4318."
  type        = string
  default     = null
}
