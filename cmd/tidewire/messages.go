package main

import "github.com/spf13/cobra"

// messageCommands are those of clients.
func messageCommands() []*cobra.Command {
	return []*cobra.Command{newPubCommand(), newSubCommand(), newWorkCommand()}
}
