package cluster_test

import (
	"bytes"
	"maps"
	"testing"

	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// Only who holds the lease moves a connector, and all of it comes back from a
// checkpoint.
func TestConnectorsProgress(t *testing.T) {
	c := cluster.NewConnectors()
	s := cluster.NewState(c)
	index := uint64(0)
	apply := func(boot, sequence uint64, records ...*clusterv1.Record) {
		index++
		s.Apply(index, &clusterv1.Envelope{Boot: boot, Sequence: sequence, Records: records})
	}
	progress := func(connector string, generation uint64, source string, places map[uint32]uint64) *clusterv1.Record {
		return &clusterv1.Record{Record: &clusterv1.Record_ConnectorProgress{ConnectorProgress: &clusterv1.ConnectorProgress{
			Connector: connector, Generation: generation, Source: []byte(source), Places: cluster.ConnectorPlaces(places),
		}}}
	}
	hello := func(name string) *clusterv1.Record {
		return &clusterv1.Record{Record: &clusterv1.Record_Hello{Hello: &clusterv1.Hello{Name: name}}}
	}
	claim := &clusterv1.Record{Record: &clusterv1.Record_Claim{Claim: &clusterv1.Claim{Lease: cluster.ConnectorLease("erp")}}}
	want := func(what string, places map[uint32]uint64) {
		t.Helper()
		if got, _, _ := c.Places("erp", []byte("s")); !maps.Equal(got, places) {
			t.Errorf("%s: %v, want %v", what, got, places)
		}
	}
	apply(1, 1, hello("a"), claim) // generation 1
	apply(2, 1, hello("b"))
	apply(2, 2, progress("erp", 1, "s", map[uint32]uint64{0: 99}))
	want("not the holder's", nil)
	apply(1, 2, progress("erp", 2, "s", map[uint32]uint64{0: 99}))
	want("another generation's", nil)
	apply(1, 3, progress("erp", 1, "s", map[uint32]uint64{0: 5, 2: 7}))
	apply(1, 4, progress("erp", 1, "s", map[uint32]uint64{2: 8}))
	want("the holder's", map[uint32]uint64{0: 5, 2: 8})

	state := c.AppendState(nil)
	other := cluster.NewConnectors()
	if err := other.LoadState(state); err != nil || !bytes.Equal(other.AppendState(nil), state) {
		t.Errorf("loaded: %v", err)
	}
	if got, same, before := other.Places("erp", []byte("s")); !maps.Equal(got, map[uint32]uint64{0: 5, 2: 8}) || !same || !before {
		t.Errorf("loaded: %v %v %v", got, same, before)
	}
	if got, same, before := other.Places("erp", []byte("anew")); got != nil || same || !before {
		t.Errorf("another source: %v %v %v", got, same, before)
	}
	if err := other.LoadState(nil); err != nil || len(other.AppendState(nil)) != 0 {
		t.Errorf("no bytes are not the state before the first record: %v", err)
	}
	apply(1, 5, progress("erp", 1, "anew", map[uint32]uint64{1: 1}))
	want("of another source", nil)
}
