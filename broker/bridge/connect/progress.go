package connect

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// Lease is the name of the lease of a connector.
func Lease(connector string) string { return "connector/" + connector }

// Progress is how far all connectors have come, a [cluster.Part]. It is kept also
// for those that are configured no more.
type Progress struct {
	mu         sync.Mutex
	connectors map[string]*journey
}

// journey is the progress of one connector.
type journey struct {
	source []byte
	places map[uint32]uint64
}

// NewProgress returns the progress of a cluster that has carried nothing.
func NewProgress() *Progress { return &Progress{connectors: make(map[string]*journey)} }

// Name names the part.
func (p *Progress) Name() string { return "connectors" }

// Apply applies what a connector has written, if it runs where the lease says.
func (p *Progress) Apply(s *cluster.State, at cluster.At, rec *clusterv1.Record) {
	r := rec.GetConnectorProgress()
	if r == nil {
		return
	}
	l, held := s.Lease(Lease(r.GetConnector()))
	if !held || l.Boot != at.Boot || l.Generation != r.GetGeneration() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.connectors[r.GetConnector()]
	if j == nil || !bytes.Equal(j.source, r.GetSource()) {
		j = &journey{source: r.GetSource(), places: make(map[uint32]uint64)}
		p.connectors[r.GetConnector()] = j
	}
	for _, place := range r.GetPlaces() {
		j.places[place.GetPartition()] = place.GetOffset()
	}
}

// Changed is of no interest here.
func (p *Progress) Changed(*cluster.State, cluster.At, cluster.Event) {}

// AppendState appends all of it, in one order.
func (p *Progress) AppendState(b []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var s clusterv1.ConnectorsState
	for _, name := range slices.Sorted(maps.Keys(p.connectors)) {
		j := p.connectors[name]
		c := &clusterv1.ConnectorState{Name: name, Source: j.source, Places: placesOf(j.places)}
		s.Connectors = append(s.Connectors, c)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, &s)
	if err != nil {
		panic(err) // names came out of a record, so they are UTF-8
	}
	return b
}

// LoadState replaces all of it.
func (p *Progress) LoadState(b []byte) error {
	var s clusterv1.ConnectorsState
	if err := proto.Unmarshal(b, &s); err != nil {
		return err
	}
	all := make(map[string]*journey, len(s.GetConnectors()))
	for _, c := range s.GetConnectors() {
		j := &journey{source: c.GetSource(), places: make(map[uint32]uint64)}
		for _, place := range c.GetPlaces() {
			j.places[place.GetPartition()] = place.GetOffset()
		}
		all[c.GetName()] = j
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connectors = all
	return nil
}

// of returns the places of a connector, and whether it has read that source. before
// reports whether it has carried anything, if only from another one.
func (p *Progress) of(connector string, source []byte) (places map[uint32]uint64, same, before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.connectors[connector]
	if j == nil {
		return nil, false, false
	}
	if !bytes.Equal(j.source, source) {
		return nil, false, true
	}
	return maps.Clone(j.places), true, true
}

func placesOf(places map[uint32]uint64) []*clusterv1.ConnectorPlace {
	var all []*clusterv1.ConnectorPlace
	for _, number := range slices.Sorted(maps.Keys(places)) {
		all = append(all, &clusterv1.ConnectorPlace{Partition: number, Offset: places[number]})
	}
	return all
}

// keeper knows how far a running connector has come, and tells the cluster.
type keeper struct {
	connector  string
	generation uint64
	source     []byte
	write      func(...*clusterv1.Record) error
	metrics    *metrics
	news       chan struct{} // has a token when there is something to tell

	mu     sync.Mutex
	places map[uint32]uint64
	moved  map[uint32]uint64 // what the cluster was not told
	ends   map[uint32]uint64 // where there is nothing more, for the lag
}

func newKeeper(c *Common, generation uint64, source []byte) *keeper {
	return &keeper{
		connector: c.Name, generation: generation, source: source, write: c.Write, metrics: c.metrics, news: make(chan struct{}, 1),
		places: make(map[uint32]uint64), moved: make(map[uint32]uint64), ends: make(map[uint32]uint64),
	}
}

// begin notes where a partition begins. news says that the cluster does not know.
func (k *keeper) begin(partition uint32, offset uint64, news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.places[partition] = offset
	if news {
		k.movedLocked(partition, offset)
	}
}

// come notes how far a partition is carried.
func (k *keeper) come(partition uint32, offset uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.places[partition] != offset {
		k.places[partition] = offset
		k.movedLocked(partition, offset)
	}
	k.lagLocked()
}

func (k *keeper) movedLocked(partition uint32, offset uint64) {
	k.moved[partition] = offset
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// reaches notes where a partition ends at the moment.
func (k *keeper) reaches(partition uint32, end uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends[partition] = end
	k.lagLocked()
}

func (k *keeper) lagLocked() {
	var lag uint64
	for number, end := range k.ends {
		if at := k.places[number]; end > at {
			lag += end - at
		}
	}
	k.metrics.lag.Set(float64(lag))
}

// tell writes what the cluster was not told yet. What it does not take now is told
// the next time.
func (k *keeper) tell() {
	k.mu.Lock()
	moved := k.moved
	k.moved = make(map[uint32]uint64)
	k.mu.Unlock()
	if len(moved) == 0 {
		return
	}
	err := k.write(&clusterv1.Record{Record: &clusterv1.Record_ConnectorProgress{ConnectorProgress: &clusterv1.ConnectorProgress{
		Connector: k.connector, Generation: k.generation, Source: k.source, Places: placesOf(moved),
	}}})
	if err == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for number, offset := range moved {
		if _, newer := k.moved[number]; !newer {
			k.movedLocked(number, offset)
		}
	}
}

// at is how far a partition is carried.
func (k *keeper) at(partition uint32) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.places[partition]
}
