package connect

import (
	"sync"

	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

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
		Connector: k.connector, Generation: k.generation, Source: k.source, Places: cluster.ConnectorPlaces(moved),
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
