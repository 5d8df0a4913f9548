package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// The program completes itself: asked with the flag below, it prints what could
// come next.
const completionFlag = "--generate-bash-completion"

const bashCompletion = `_fastpaca_complete() {
  local cur="${COMP_WORDS[COMP_CWORD]}" before=("${COMP_WORDS[@]:0:COMP_CWORD}")
  [[ "$cur" == -* ]] && before+=("$cur")
  COMPREPLY=($(compgen -W "$("${before[@]}" ` + completionFlag + ` 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _fastpaca_complete fastpaca
`

const zshCompletion = `#compdef fastpaca
_fastpaca_complete() {
  local -a found before
  before=("${(@)words[1,CURRENT-1]}")
  [[ "${words[CURRENT]}" == -* ]] && before+=("${words[CURRENT]}")
  found=("${(@f)$(SHELL=zsh "${(@)before}" ` + completionFlag + ` 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then _describe 'fastpaca' found; else _files; fi
}
compdef _fastpaca_complete fastpaca
`

const fishCompletion = `function __fastpaca_complete
  set -l before (commandline -opc)
  set -l cur (commandline -ct)
  string match -q -- '-*' $cur; and set -a before $cur
  $before ` + completionFlag + ` 2>/dev/null
end
complete -c fastpaca -a '(__fastpaca_complete)'
`

func completionCommand() *cli.Command {
	cmd := &cli.Command{
		Name:  "completion",
		Usage: "print a script that completes commands and flags in a shell",
		Description: "Example:\n   source <(fastpaca completion bash)\n   source <(fastpaca completion zsh)\n" +
			"   fastpaca completion fish > ~/.config/fish/completions/fastpaca.fish",
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError{fmt.Errorf("completion for %q: want bash, zsh or fish", c.Args().First())}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
	for _, shell := range []struct{ name, script string }{{"bash", bashCompletion}, {"zsh", zshCompletion}, {"fish", fishCompletion}} {
		cmd.Subcommands = append(cmd.Subcommands, &cli.Command{
			Name: shell.name, Usage: "print the script for " + shell.name, HideHelpCommand: true,
			Action: func(c *cli.Context) error {
				_, err := fmt.Fprint(c.App.Writer, shell.script)
				return err
			},
		})
	}
	return cmd
}
