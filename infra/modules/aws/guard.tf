# Terraform does not know what a data node holds; the cluster does. Whoever
# drains a node says so in drained_data_nodes. This compares what exists with
# what is wanted, so that a number lowered too early changes nothing.

data "aws_instances" "existing" {
  count                = var.check_removals ? 1 : 0
  instance_state_names = ["pending", "running", "stopping", "stopped"]
  instance_tags = {
    "fastpaca:cluster" = var.name
    "fastpaca:role"    = "data"
  }
}

data "aws_instance" "existing" {
  for_each    = toset(try(data.aws_instances.existing[0].ids, []))
  instance_id = each.key
}

locals {
  existing_data_nodes = toset(compact([for i in data.aws_instance.existing : lookup(i.tags, "fastpaca:node", "")]))
  removed_undrained   = setsubtract(local.existing_data_nodes, setunion(local.data_names, var.drained_data_nodes))
  # A drained name that would not have come up yet is a slip of the pen.
  drained_unknown = [
    for n in var.drained_data_nodes : n
    if tonumber(trimprefix(n, "d")) > var.data_nodes + length(var.drained_data_nodes)
  ]
}

resource "terraform_data" "placement_guard" {
  input = local.data_names

  lifecycle {
    precondition {
      condition     = length(local.removed_undrained) == 0
      error_message = <<-EOT
        This plan would destroy data nodes that may hold replicas: ${join(", ", local.removed_undrained)}.
        For each of them run, on a control member (output admin_command),
          fastpaca cluster drain NAME --yes --wait
        and add its name to drained_data_nodes once that has succeeded. To keep the nodes, set data_nodes back.
      EOT
    }
    precondition {
      condition     = length(local.drained_unknown) == 0
      error_message = "drained_data_nodes names nodes that never existed: ${join(", ", local.drained_unknown)}. Name only nodes that `fastpaca cluster nodes` has shown."
    }
    precondition {
      condition     = alltrue([for az in local.zones : startswith(az, local.region)])
      error_message = "private_subnets stand in ${substr(local.zones[0], 0, length(local.zones[0]) - 1)}, but the provider is set to ${local.region}. Set the provider's region to that of the subnets."
    }
  }
}
