package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/config"
)

// TestWantedDefinitions: what a configuration makes of the streams in Kafka. A stream
// that does not take topics from another one may come or go before it.
func TestWantedDefinitions(t *testing.T) {
	c := config.Default()
	c.Kafka.Brokers = []string{"kafka:9092"}
	add := func(name string, local bool, filters ...string) {
		c.Streams.Others = append(c.Streams.Others, config.OtherStream{Name: name, Filters: filters, Local: local, Storage: config.StorageDisk, Stream: c.Streams.Main})
	}
	add("eu", false, "orders.eu.>")
	add("notes", true, "notes.>")
	add("orders", false, "orders.>")
	var got []string
	for _, d := range wantedDefinitions(c) {
		got = append(got, fmt.Sprintf("%s %s %v %v", d.GetStream(), d.GetKafkaTopic(), d.GetFilters(), d.GetBefore()))
	}
	want := []string{
		"eu tidewire.eu [orders.eu.>] []",
		"orders tidewire.orders [orders.>] [orders.eu.>]",
		"dead tidewire.dead [] []",
		"main tidewire.main [] []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}

	names := logNames(c)
	for _, name := range []string{"main.0", "main.3", "dead.0", "eu.0", "notes"} {
		if !slices.Contains(names, name) {
			t.Errorf("the logs on disk are %q, without %s", names, name)
		}
	}
	if slices.Contains(names, controlLog) || slices.Contains(names, "main") {
		t.Errorf("the logs on disk are %q", names)
	}
	c.Kafka.Brokers = nil
	if names := logNames(c); !slices.Contains(names, controlLog) || !slices.Contains(names, "main") || slices.Contains(names, "main.0") {
		t.Errorf("without Kafka the logs on disk are %q", names)
	}
}

// TestShare: the partitions of a stream share what it may keep.
func TestShare(t *testing.T) {
	s := config.Default().Streams.Main
	s.Partitions = 4
	if got := share(&s); got != s.RetentionBytes/4 {
		t.Errorf("%v of %v", got, s.RetentionBytes)
	}
	s.RetentionBytes = config.Unlimited
	if got := share(&s); got != config.Unlimited {
		t.Errorf("%v of unlimited", got)
	}
	k := kafkaTool{settings: config.Default()}
	k.settings.Streams.Main.RetentionBytes, k.settings.Streams.Main.RetentionAge = config.Unlimited, config.Forever
	if o := k.topicOptions("main"); o.RetentionBytes > 0 || o.Retention >= 0 || o.Replication != 3 || o.MinInSync != 2 {
		t.Errorf("the topic gets %+v", o)
	}
}

// TestKafkaCommandsNeedKafka: without Kafka in the configuration they say what to write.
func TestKafkaCommandsNeedKafka(t *testing.T) {
	for _, args := range [][]string{{"init"}, {"status"}, {"new-term", "main"}} {
		c := newKafkaCommand()
		c.SetArgs(args)
		c.SilenceErrors, c.SilenceUsage = true, true
		if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "kafka.brokers") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
