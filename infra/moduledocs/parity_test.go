package moduledocs

import (
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// One description of a cluster fits both modules: what is here must be in each,
// with the same default, and is all that they share.
var (
	sharedInputs = []string{
		"archive", "check_removals", "control_members", "data_nodes", "drained_data_nodes", "environment", "image", "name",
		"observability", "replication_factor", "routers", "tls",
	}
	sharedOutputs = []string{"admin_command", "admin_endpoint", "endpoint", "endpoints", "nodes", "prometheus_config"}

	// What is an object of the platform's own kind.
	platformTypes = []string{"observability", "tls"}

	// All others, which say where and on what a cluster stands.
	ownInputs = map[string][]string{
		"docker": {"archive_url", "bind_address", "keep_image", "labels", "port", "postgres_image", "token"},
		"aws": {
			"allowed_cidrs", "allowed_security_group_ids", "ami_id", "architecture", "archive_database", "archive_url_secret_arn",
			"certificate_arn", "control_instance_type", "data_instance_type", "data_volume", "ecr_repository_arns", "kms_key_arn",
			"load_balancer_subnets", "private_subnets", "public", "router_size", "routers_max", "tags", "token_secret_arn",
			"token_version", "vpc_id",
		},
	}
	ownOutputs = map[string][]string{
		"docker": {"dashboards", "token"},
		"aws":    {"archive_secret_arn", "security_group_ids", "token_secret_arn", "tunnel_command", "upgrade_commands"},
	}
)

func TestModulesHaveTheSameInputsAndOutputs(t *testing.T) {
	t.Parallel()
	inputs := map[string]map[string]item{}
	for _, module := range []string{"docker", "aws"} {
		dir := filepath.Join("..", "modules", module)
		variables, err := items(dir, "variable", "variables.tf")
		require.NoError(t, err)
		outputs, err := items(dir, "output", "outputs.tf")
		require.NoError(t, err)
		require.ElementsMatch(t, slices.Concat(sharedInputs, ownInputs[module]), names(variables), "inputs of %s", module)
		require.ElementsMatch(t, slices.Concat(sharedOutputs, ownOutputs[module]), names(outputs), "outputs of %s", module)
		inputs[module] = map[string]item{}
		for _, v := range variables {
			inputs[module][v.Name] = v
		}
	}
	for _, name := range sharedInputs {
		docker, aws := inputs["docker"][name], inputs["aws"][name]
		require.Equal(t, docker.Default, aws.Default, "default of %s", name)
		require.False(t, docker.Required || aws.Required, "%s has a default", name)
		if !slices.Contains(platformTypes, name) {
			require.Equal(t, docker.Type, aws.Type, "type of %s", name)
		}
	}
	// What both objects have is the same in both.
	for _, attribute := range []string{"otlp_endpoint = optional(string)", `server_name = optional(string, "fastpaca")`} {
		for _, module := range []string{"docker", "aws"} {
			both := inputs[module]["observability"].Type + inputs[module]["tls"].Type
			require.Regexp(t, regexp.MustCompile(regexp.QuoteMeta(attribute)), both, module)
		}
	}
}

// `terraform init` and `terraform apply` suffice.
func TestExamplesNeedNoVariable(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob(filepath.Join("..", "examples", "*"))
	require.NoError(t, err)
	require.Len(t, examples, 3)
	for _, dir := range examples {
		variables, err := items(dir, "variable", "variables.tf")
		require.NoError(t, err)
		for _, v := range variables {
			require.False(t, v.Required, "%s: %s has no default", dir, v.Name)
		}
		outputs, err := items(dir, "output", "outputs.tf")
		require.NoError(t, err)
		require.Contains(t, names(outputs), "next", "%s says what to do next", dir)
	}
}

func names(items []item) []string {
	var out []string
	for _, i := range items {
		out = append(out, i.Name)
	}
	return out
}
