package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/storage"
)

func newRestoreCommand() *cobra.Command {
	var data string
	var asJSON bool
	c := &cobra.Command{
		Use:   "restore --data DIRECTORY DIRECTORY|FILE.tar|-",
		Short: "Make a data directory of a backup",
		Long: `Make a data directory of a backup, after every byte of it has been verified. The
directory must be empty or not exist. If anything is wrong it is left like that.

Start a broker on it then. Clients that have seen messages from after the backup
are told of a gap: exactly which ones are gone.`,
		Example: `  tidewire restore /backups/2026-11-21 --data /var/lib/tidewire-new
  zstd -dc tidewire.tar.zst | tidewire restore - --data /var/lib/tidewire-new`,
		Args: oneArgument("the backup"),
		RunE: func(c *cobra.Command, args []string) error {
			if data == "" {
				return errors.New("restore needs --data, a directory that is empty or does not exist; move the old one away first")
			}
			progress := newProgress(c.ErrOrStderr())
			show := func(p storage.BackupProgress) { showCopy(progress, "restoring", p) }
			var m storage.Manifest
			var err error
			if args[0] == "-" {
				m, err = storage.RestoreArchive(c.Context(), c.InOrStdin(), data, show)
			} else {
				m, err = storage.Restore(c.Context(), args[0], data, show)
			}
			progress.clear()
			switch {
			case err != nil && c.Context().Err() != nil:
				return errors.New("interrupted; nothing has been restored")
			case err != nil:
				return err
			}
			return reportBackup(c.OutOrStdout(), &m, "restored to "+data, asJSON)
		},
	}
	c.Flags().StringVar(&data, "data", "", "`directory` to make, empty or not there yet")
	c.Flags().BoolVar(&asJSON, "json", false, "print the manifest of the backup as one JSON object")
	return c
}
