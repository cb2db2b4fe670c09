package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

func newKafkaTermCommand() *cobra.Command {
	var from configFlags
	var yes bool
	c := &cobra.Command{
		Use:   "new-term NAME --yes",
		Short: "Begin a stream anew, with the settings of the configuration",
		Long: `Begin a stream anew: after its topic in Kafka was deleted and created again, or to
change what is fixed for a stream, such as its partitions or its dedupe window. The
topic is created if it is not there; what it holds is read again.

Every position that clients keep becomes one of an older log: they are told a gap,
and go on from the earliest message. Consumers, too. The brokers drop their copies
when they start again.`,
		Example: "  tidewire kafka new-term orders --config /etc/tidewire.yaml --yes",
		Args:    oneStreamOfKafka,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := openKafkaTool(&from, c.OutOrStdout(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer t.close()
			return t.newTerm(c.Context(), args[0], yes)
		},
	}
	from.addFile(c)
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

func oneStreamOfKafka(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("write the name of one stream: %s NAME; `tidewire kafka status` shows them", c.CommandPath())
	}
	return nil
}

// newTerm begins a stream anew.
func (t *kafkaTool) newTerm(ctx context.Context, name string, yes bool) error {
	state, err := t.read(ctx)
	if err != nil {
		return err
	}
	want, known := t.wanted(name)
	before := state.Definition(name)
	switch {
	case want == nil:
		return fmt.Errorf("the configuration has no stream %q in Kafka, it has %s", name, strings.Join(known, ", "))
	case before == nil || cluster.Removed(before):
		return fmt.Errorf("the cluster has no stream %s yet: run `tidewire kafka init`", name)
	case !yes:
		return fmt.Errorf("this would begin the stream %s anew: all positions of it end in a gap, and what the topic %s does not hold any more is gone on the brokers, too; say --yes if you mean it", name, before.GetKafkaTopic())
	}
	if err := t.define(ctx, want, before); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(t.out, "start all brokers again: until then they stay with the term before\n")
	return nil
}

// wanted returns what the configuration says of a stream, and the names of all.
func (t *kafkaTool) wanted(name string) (d *clusterv1.Definition, known []string) {
	for _, w := range wantedDefinitions(t.settings) {
		known = append(known, w.GetStream())
		if w.GetStream() == name {
			d = w
		}
	}
	return d, known
}
