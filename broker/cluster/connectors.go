package cluster

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// ConnectorLease is the name of the lease of a connector.
func ConnectorLease(connector string) string { return "connector/" + connector }

// Connectors is how far all connectors have come, a [Part]. It is kept also
// for those that are configured no more.
type Connectors struct {
	mu         sync.Mutex
	connectors map[string]*journey
}

// journey is the progress of one connector.
type journey struct {
	source []byte
	places map[uint32]uint64
}

// NewConnectors returns the progress of a cluster that has carried nothing.
func NewConnectors() *Connectors { return &Connectors{connectors: make(map[string]*journey)} }

// Name names the part.
func (c *Connectors) Name() string { return "connectors" }

// Apply applies what a connector has written, if it runs where the lease says.
func (c *Connectors) Apply(s *State, at At, rec *clusterv1.Record) {
	r := rec.GetConnectorProgress()
	if r == nil {
		return
	}
	l, held := s.Lease(ConnectorLease(r.GetConnector()))
	if !held || l.Boot != at.Boot || l.Generation != r.GetGeneration() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	j := c.connectors[r.GetConnector()]
	if j == nil || !bytes.Equal(j.source, r.GetSource()) {
		j = &journey{source: r.GetSource(), places: make(map[uint32]uint64)}
		c.connectors[r.GetConnector()] = j
	}
	for _, place := range r.GetPlaces() {
		j.places[place.GetPartition()] = place.GetOffset()
	}
}

// Changed is of no interest here.
func (c *Connectors) Changed(*State, At, Event) {}

// AppendState appends all of it, in one order.
func (c *Connectors) AppendState(b []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s clusterv1.ConnectorsState
	for _, name := range slices.Sorted(maps.Keys(c.connectors)) {
		j := c.connectors[name]
		s.Connectors = append(s.Connectors, &clusterv1.ConnectorState{Name: name, Source: j.source, Places: ConnectorPlaces(j.places)})
	}
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, &s)
	if err != nil {
		panic(err) // names came out of a record, so they are UTF-8
	}
	return b
}

// LoadState replaces all of it.
func (c *Connectors) LoadState(b []byte) error {
	var s clusterv1.ConnectorsState
	if err := proto.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("decode the progress of connectors: %w", err)
	}
	all := make(map[string]*journey, len(s.GetConnectors()))
	for _, one := range s.GetConnectors() {
		j := &journey{source: one.GetSource(), places: make(map[uint32]uint64)}
		for _, place := range one.GetPlaces() {
			j.places[place.GetPartition()] = place.GetOffset()
		}
		all[one.GetName()] = j
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connectors = all
	return nil
}

// Places returns the places of a connector, and whether it has read that source. before
// reports whether it has carried anything, if only from another one.
func (c *Connectors) Places(connector string, source []byte) (places map[uint32]uint64, same, before bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j := c.connectors[connector]
	if j == nil {
		return nil, false, false
	}
	if !bytes.Equal(j.source, source) {
		return nil, false, true
	}
	return maps.Clone(j.places), true, true
}

// ConnectorPlaces returns places as they stand in a record, by partition.
func ConnectorPlaces(places map[uint32]uint64) []*clusterv1.ConnectorPlace {
	var all []*clusterv1.ConnectorPlace
	for _, number := range slices.Sorted(maps.Keys(places)) {
		all = append(all, &clusterv1.ConnectorPlace{Partition: number, Offset: places[number]})
	}
	return all
}
