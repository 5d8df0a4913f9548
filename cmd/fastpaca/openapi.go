package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/router/api"
)

func openapiCommand() *cli.Command {
	var format string
	return &cli.Command{
		Name:  "openapi",
		Usage: "print the OpenAPI document of the public API",
		Description: "Printed from the handlers themselves; needs no server.\n\n" +
			"Example:\n   fastpaca openapi --format json > openapi.json",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: api.FormatYAML, Usage: "yaml or json (OpenAPI 3.1), or json30 (OpenAPI 3.0)", Destination: &format},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			switch format {
			case api.FormatYAML, api.FormatJSON, api.FormatJSON30:
			default:
				return usageError{fmt.Errorf("--format %q: want yaml, json or json30", format)}
			}
			document, err := api.Document(format)
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(document)
			return err
		},
	}
}
