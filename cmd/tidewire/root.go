package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The groups of commands in the help text.
const (
	groupBroker   = "broker"
	groupMessages = "messages"
	groupOthers   = "others"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tidewire",
		Short: "A pub/sub broker that speaks WebSocket",
		Long: `Tidewire is a pub/sub broker that speaks WebSocket. Backends publish over HTTP
or WebSocket, browsers and programs subscribe, and whoever was away gets what it
missed.`,
		Example: `  tidewire serve --dev                  start a broker on this machine
  tidewire sub 'room.>'                 see what arrives (quote the >)
  tidewire pub room.1 hello             publish a message`,
		SilenceErrors: true, // run prints them, once
		SilenceUsage:  true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupBroker, Title: "Running a broker:"},
		&cobra.Group{ID: groupMessages, Title: "Messages:"},
		&cobra.Group{ID: groupOthers, Title: "Others:"},
	)
	root.SetHelpCommandGroupID(groupOthers)
	root.SetCompletionCommandGroupID(groupOthers)
	root.SetFlagErrorFunc(flagError)
	add(root, groupBroker, newServeCommand(), newConfigCommand(), newBackupCommand(), newRestoreCommand(), newCheckCommand(), newDoctorCommand(), newStreamsCommand(), newTopicsCommand(), newConsumersCommand(), newDeadCommand(), newMessageCommand(), newKafkaCommand())
	add(root, groupMessages, messageCommands()...)
	add(root, groupOthers, newTokenCommand(), newVersionCommand())
	return root
}

func add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// flagError says where the flags are listed.
func flagError(c *cobra.Command, err error) error {
	return fmt.Errorf("%w; `%s --help` lists what there is", err, c.CommandPath())
}

// complain prints an error as one line.
func complain(w io.Writer, err error) {
	_, _ = fmt.Fprintf(w, "tidewire: %s\n", sentence(err))
}

// sentence makes one line of an error. The library writes its suggestions for
// misspelled commands below each other.
func sentence(err error) string {
	first, rest, found := strings.Cut(err.Error(), "\n")
	if !found {
		return first
	}
	words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(rest), "Did you mean this?"))
	if strings.HasPrefix(first, "unknown command ") && len(words) > 0 {
		return first + "; did you mean " + strings.Join(words, " or ") + "?"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// noArguments refuses arguments with a sentence.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, but %q was given; `%s --help` lists its flags", c.CommandPath(), args[0], c.CommandPath())
	}
	return nil
}

// group makes a command that only holds others: alone it prints its help, and
// it refuses what it does not hold.
func group(c *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	c.AddCommand(commands...)
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		var known []string
		for _, sub := range c.Commands() {
			known = append(known, sub.Name())
		}
		return fmt.Errorf("unknown command %q for %q; there is %s", args[0], c.CommandPath(), strings.Join(known, " and "))
	}
	return c
}

// errSaid ends a command with status 1 that has already said why.
var errSaid = errors.New("")

// statusError ends a command with the status of a process that has said why.
type statusError int

// Error says the status.
func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }
