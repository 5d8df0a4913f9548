package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/mesh"
)

// credentialConfig is how a process proves that it belongs to the cluster.
type credentialConfig struct {
	Token         string
	TLSCert       string
	TLSKey        string
	TLSCA         string
	TLSServerName string
	Insecure      bool
}

func (c *credentialConfig) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "token", EnvVars: []string{"FASTPACA_TOKEN"},
			Usage: "`SECRET` shared by all processes of the cluster, at least 16 characters; prefer the environment variable", Destination: &c.Token},
		&cli.StringFlag{Name: "tls-cert", EnvVars: []string{"FASTPACA_TLS_CERT"},
			Usage: "PEM `FILE` with this process's certificate, for mutual TLS between processes", Destination: &c.TLSCert},
		&cli.StringFlag{Name: "tls-key", EnvVars: []string{"FASTPACA_TLS_KEY"},
			Usage: "PEM `FILE` with the certificate's key", Destination: &c.TLSKey},
		&cli.StringFlag{Name: "tls-ca", EnvVars: []string{"FASTPACA_TLS_CA"},
			Usage: "PEM `FILE` with the authority that all processes' certificates come from", Destination: &c.TLSCA},
		&cli.StringFlag{Name: "tls-server-name", EnvVars: []string{"FASTPACA_TLS_SERVER_NAME"},
			Usage: "`NAME` that peers' certificates must be valid for; default: the host that is dialed", Destination: &c.TLSServerName},
		&cli.BoolFlag{Name: "insecure", EnvVars: []string{"FASTPACA_INSECURE"},
			Usage: "let the internal listener face other machines without a token or TLS", Destination: &c.Insecure},
	}
}

// validate reports what is wrong with the credentials themselves; their files
// are opened at start.
func (c *credentialConfig) validate() error {
	return c.mesh(mesh.RoleRouter, "", slog.New(slog.DiscardHandler)).Validate()
}

// mesh returns the process's side of the internal network.
func (c *credentialConfig) mesh(role mesh.Role, id string, log *slog.Logger) mesh.Config {
	return mesh.Config{
		Role: role, ID: id, Insecure: c.Insecure, Logger: log,
		Credentials: mesh.Credentials{
			Token: mesh.Token(c.Token), CertFile: c.TLSCert, KeyFile: c.TLSKey, CAFile: c.TLSCA, ServerName: c.TLSServerName,
		},
	}
}
