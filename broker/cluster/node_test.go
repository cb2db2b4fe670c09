package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/cluster/clustertest"
)

// running is a node that runs in a bubble.
type running struct {
	*cluster.Node
	way    *clustertest.Way
	cancel context.CancelFunc
	err    error
	ended  chan struct{}
}

func start(t *testing.T, log *clustertest.Log, name string, change ...func(*cluster.Options)) *running {
	t.Helper()
	r := &running{way: log.Way(1), ended: make(chan struct{})}
	o := cluster.Options{Name: name, Version: 1, Log: r.way}
	for _, f := range change {
		f(&o)
	}
	n, err := cluster.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Node = n
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() {
		defer close(r.ended)
		r.err = n.Run(ctx)
	}()
	return r
}

// stop ends the node, whose goodbye comes through unless it is stalled.
func (r *running) stop() {
	r.cancel()
	<-r.ended
	r.way.Stall(false)
	r.way.Wait()
}

func (r *running) names() string {
	var names []string
	r.View(func(s *cluster.State) {
		for _, n := range s.Nodes() {
			names = append(names, n.Name)
		}
	})
	return fmt.Sprint(names)
}

func TestALeaseMovesWhenItsHolderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := clustertest.New()
		a := start(t, log, "a")
		synctest.Wait()
		b := start(t, log, "b")
		synctest.Wait()
		if !a.Live() || !b.Live() || a.names() != "[a b]" {
			t.Fatalf("live: %v %v, nodes: %s", a.Live(), b.Live(), a.names())
		}
		var mu sync.Mutex
		holder := ""
		hold := func(r *running, name string) context.CancelFunc {
			ctx, cancel := context.WithCancel(t.Context())
			go r.Hold(ctx, "x", func(ctx context.Context, generation uint64) {
				mu.Lock()
				holder += fmt.Sprintf("+%s%d", name, generation)
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				holder += "-" + name
				mu.Unlock()
			})
			return cancel
		}
		endA := hold(a, "a")
		synctest.Wait()
		endB := hold(b, "b")
		a.way.Stall(true)
		time.Sleep(5 * time.Second)
		mu.Lock()
		if !strings.HasPrefix(holder, "+a4-a+b") || b.names() != "[b]" {
			t.Errorf("who held the lease: %s; nodes: %s", holder, b.names())
		}
		mu.Unlock()
		a.way.Stall(false)
		time.Sleep(3 * time.Second)
		if a.names() != "[b a]" {
			t.Errorf("a is not back: %s", a.names())
		}
		endA()
		endB()
		synctest.Wait()
		a.stop()
		b.stop()
		if a.err != nil || b.err != nil {
			t.Error(a.err, b.err)
		}
	})
}
