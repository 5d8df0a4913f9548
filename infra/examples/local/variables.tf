variable "name" {
  description = "Name of the cluster."
  type        = string
  default     = "fastpaca"
}

variable "image" {
  description = "Image to run; null builds it from this checkout."
  type        = string
  default     = null
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
  description = "Routers."
  type        = number
  default     = 2
}

variable "archive" {
  description = "none, or managed for a Postgres beside the cluster."
  type        = string
  default     = "none"
}

variable "port" {
  description = "Port of the first router on 127.0.0.1."
  type        = number
  default     = 4000
}

variable "dashboards" {
  description = "Start Prometheus on port 9090 and Grafana on port 3000 as well."
  type        = bool
  default     = false
}

variable "tls" {
  description = "Mutual TLS between the processes, as the module describes it; null for none."
  type = object({
    directory   = string
    server_name = optional(string, "fastpaca")
  })
  default = null
}
