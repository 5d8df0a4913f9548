package main

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/mesh"
)

// clusterConfig is what every verb of `fastpaca cluster` needs to reach it.
type clusterConfig struct {
	Control     string
	Output      string
	Credentials credentialConfig
}

// Values of --output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

func (c *clusterConfig) flags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "control", EnvVars: []string{"FASTPACA_CONTROL"}, Value: "127.0.0.1:7401",
			Usage: "control members, as `HOST:PORT,…`", Destination: &c.Control},
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, EnvVars: []string{"FASTPACA_OUTPUT"}, Value: outputTable,
			Usage: "`FORMAT` of what is printed: table or json", Destination: &c.Output},
	}
	return append(flags, c.Credentials.flags()...)
}

func (c *clusterConfig) validate() error {
	_, err := addressList("control", c.Control)
	errs := []error{err, c.Credentials.validate()}
	if c.Output != outputTable && c.Output != outputJSON {
		errs = append(errs, errors.New("--output: want table or json"))
	}
	return errors.Join(errs...)
}

// dial opens the cluster's internal network, as a process that keeps nothing.
func (c *clusterConfig) dial() (*internal, []string, error) {
	addresses, err := addressList("control", c.Control)
	if err != nil {
		return nil, nil, err
	}
	in, err := openInternal(c.Credentials.mesh(mesh.RoleRouter, "", slog.New(slog.DiscardHandler)), "")
	return in, addresses, err
}

func clusterCommand() *cli.Command {
	cmd := &cli.Command{
		Name:        "cluster",
		Usage:       "look after a cluster",
		Description: clusterExitCodes + "\n\nExample:\n   fastpaca cluster status --control 127.0.0.1:7401", HideHelpCommand: true,
		Subcommands: slices.Concat(clusterLookCommands(), clusterOperateCommands(), clusterBackupCommands(), []*cli.Command{clusterVerifyCommand()}),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError{errors.New("unknown command cluster " + c.Args().First())}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
	for _, sub := range cmd.Subcommands {
		sub.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
		sub.HideHelpCommand = true
	}
	return cmd
}
