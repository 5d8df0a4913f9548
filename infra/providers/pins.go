package main

// pin is a provider at the exact version that the modules are checked with. The
// module proxy answers for exact versions only, also where it lists none.
type pin struct {
	Source  string // as Terraform names it, without the registry
	Version string // that the source of the module gives itself
	Module  string
	Query   string // the version of the module
	// Services are what is kept of the AWS provider: with all of them, its build
	// takes a quarter of an hour and ten gigabytes. Empty for whole providers.
	Services []string
}

// registry is whose providers Terraform takes `hashicorp/aws` for.
const registry = "registry.terraform.io"

var pins = []pin{
	{
		Source: "hashicorp/random", Version: "3.9.0",
		Module: "github.com/hashicorp/terraform-provider-random", Query: "v1.3.2-0.20260824155315-e1092b0cfc07",
	},
	{
		Source: "kreuzwerker/docker", Version: "4.6.0",
		Module: "github.com/kreuzwerker/terraform-provider-docker", Query: "v0.0.0-20260916201441-96d331c98ff4",
	},
	{
		Source: "hashicorp/aws", Version: "6.47.1",
		Module: "github.com/hashicorp/terraform-provider-aws", Query: "v1.60.1-0.20260602190131-5f2286d6d836",
		Services: []string{
			"appautoscaling", "ec2", "ecs", "elbv2", "iam", "logs", "meta", "rds", "secretsmanager", "servicediscovery", "ssm",
		},
	},
}
