package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/cluster/clustertest"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

func mainStream() *clusterv1.Definition {
	return &clusterv1.Definition{
		Stream: "main", KafkaTopic: "tidewire.main", KafkaId: []byte{1, 2}, Partitions: 3,
		DedupeWindow: 1000, Filters: []string{"a.>", "b"}, Before: []string{"c"}, PerTopic: 5, MaxPayloadBytes: 1 << 20,
	}
}

// TestDefinitions goes the way of the tool: init, the same again, a new term, away.
func TestDefinitions(t *testing.T) {
	log := clustertest.New().Way(1)
	ctx := context.Background()
	read := func() *cluster.State {
		t.Helper()
		s, err := cluster.ReadState(ctx, log)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	complaints := func(want ...*clusterv1.Definition) string {
		t.Helper()
		var all []string
		for _, d := range read().Check(want) {
			all = append(all, d.Error())
		}
		return strings.Join(all, "\n")
	}
	want := mainStream()
	if is := complaints(want); !strings.Contains(is, `no stream "main"`) {
		t.Errorf("before init: %q", is)
	}
	first := cluster.NewTerm(want, nil)
	if err := cluster.Define(ctx, log, first, 0); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Define(ctx, log, cluster.NewTerm(want, nil), 0); !errors.Is(err, cluster.ErrOvertaken) {
		t.Errorf("a second init: %v", err)
	}
	if is := complaints(want); is != "" {
		t.Errorf("after init: %q", is)
	}
	second := cluster.NewTerm(want, first)
	second.Partitions = 4
	if err := cluster.Define(ctx, log, second, first.GetTerm()); err != nil {
		t.Fatal(err)
	}
	if second.GetTerm() == first.GetTerm() || !bytes.Equal(first.GetSecret(), second.GetSecret()) || len(first.GetSecret()) < 16 {
		t.Error("a new term has another number and the same secret")
	}
	if is := complaints(want); is != "partitions of stream \"main\" is 3 in the configuration and 4 in the cluster: "+
		"set it to that on every node, or change it for all with 'tidewire kafka new-term main'" {
		t.Errorf("after a new term: %q", is)
	}
	if is := complaints(); !strings.Contains(is, `a stream "main", which the configuration lacks`) {
		t.Errorf("without the stream: %q", is)
	}
	if terms := read().Terms("main"); len(terms) != 2 || !proto.Equal(terms[0].Definition, first) || terms[1].Index != 3 {
		t.Errorf("terms: %v", terms)
	}
	if err := cluster.Define(ctx, log, cluster.Removal(second), second.GetTerm()); err != nil {
		t.Fatal(err)
	}
	if is := complaints(); is != "" {
		t.Errorf("after its removal: %q", is)
	}
	if is := complaints(want); !strings.Contains(is, `no stream "main"`) {
		t.Errorf("after its removal: %q", is)
	}
}

// TestEachSettingIsCompared changes one after the other.
func TestEachSettingIsCompared(t *testing.T) {
	log := clustertest.New().Way(1)
	if err := cluster.Define(t.Context(), log, cluster.NewTerm(mainStream(), nil), 0); err != nil {
		t.Fatal(err)
	}
	s, err := cluster.ReadState(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(d *clusterv1.Definition){
		"kafka_topic":            func(d *clusterv1.Definition) { d.KafkaTopic = "x" },
		"kafka_id":               func(d *clusterv1.Definition) { d.KafkaId = []byte{7} },
		"partitions":             func(d *clusterv1.Definition) { d.Partitions = 7 },
		"dedupe_window":          func(d *clusterv1.Definition) { d.DedupeWindow = 7 },
		"filters":                func(d *clusterv1.Definition) { d.Filters = d.Filters[1:] },
		"the list of filters of": func(d *clusterv1.Definition) { d.Before = nil },
		"max_messages_per_topic": func(d *clusterv1.Definition) { d.PerTopic = 0 },
		"limits.payload_bytes":   func(d *clusterv1.Definition) { d.MaxPayloadBytes = 7 },
		"": func(d *clusterv1.Definition) {
			d.KafkaId, d.Term, d.Secret, d.Format = nil, 7, []byte{7}, 7
			d.Filters = []string{"b", "a.>"}
		},
	} {
		d := mainStream()
		change(d)
		all := s.Check([]*clusterv1.Definition{d})
		if want == "" && len(all) > 0 || want != "" && (len(all) != 1 || !strings.HasPrefix(all[0].Setting, want)) {
			t.Errorf("a change of %q is told as %v", want, all)
		}
	}
	if n := (&clusterv1.Definition{}).ProtoReflect().Descriptor().Fields().Len(); n != 12 {
		t.Errorf("a definition has %d fields: compare the new ones, too", n)
	}
}
