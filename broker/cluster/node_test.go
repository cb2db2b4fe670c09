package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/cluster/clustertest"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
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

// TestAFailoverExpiresNobody: when the log comes back, it does so later for b, which a
// has heard last before one of its own heartbeats.
func TestAFailoverExpiresNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := clustertest.New()
		b := start(t, log, "b")
		time.Sleep(500 * time.Millisecond)
		a := start(t, log, "a")
		time.Sleep(5700 * time.Millisecond)
		before := fmt.Sprint(a.Boot(), b.Boot())
		b.way.Stall(true)
		log.Away(true)
		time.Sleep(10 * time.Second)
		log.Away(false)
		time.Sleep(2 * time.Second)
		b.way.Stall(false)
		time.Sleep(5 * time.Second)
		if now := fmt.Sprint(a.Boot(), b.Boot()); now != before || a.names() != "[b a]" || !a.Live() || !b.Live() {
			t.Errorf("boots %s became %s, nodes: %s", before, now, a.names())
		}
		// Whoever is silent after that is expired as always.
		b.way.Stall(true)
		time.Sleep(4500 * time.Millisecond)
		if a.names() != "[a]" {
			t.Errorf("nodes: %s", a.names())
		}
		a.stop()
		b.stop()
	})
}

func TestTwoNodesOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := clustertest.New()
		first := start(t, log, "a")
		time.Sleep(time.Second)
		second := start(t, log, "a")
		<-first.ended
		if first.err == nil || !strings.Contains(first.err.Error(), `the name "a"`) || first.Live() {
			t.Errorf("the first ended with: %v", first.err)
		}
		time.Sleep(5 * time.Second)
		if !second.Live() || second.names() != "[a]" {
			t.Errorf("nodes: %s", second.names())
		}
		second.stop()
		first.stop()
	})
}

// TestWritesOutsideOfAMembership: what is written before the hello, or behind the
// goodbye, would be lost: it is refused.
func TestWritesOutsideOfAMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := clustertest.New()
		live := make(chan bool, 10)
		log.Away(true)
		a := start(t, log, "a", func(o *cluster.Options) { o.Live = func(is bool) { live <- is } })
		if err := a.Claim("x"); !errors.Is(err, cluster.ErrAway) {
			t.Errorf("a claim before anything was read: %v", err)
		}
		log.Away(false)
		time.Sleep(10 * time.Second)
		if err := a.Claim("x"); err != nil || !<-live {
			t.Errorf("a claim of a member: %v", err)
		}
		log.Away(true)
		time.Sleep(10 * time.Second)
		if <-live {
			t.Error("it lives without the log")
		}
		big := taped(kindAct, 1, strings.Repeat("x", 512<<10))
		n := 0
		for ; a.Write(big) == nil; n++ {
		}
		if err := a.Write(big); !errors.Is(err, cluster.ErrFull) || n != 127 {
			t.Errorf("after %d halves of a MiB: %v", n, err)
		}
		log.Away(false)
		if !<-live {
			t.Error("it does not live again")
		}
		for end := time.Now().Add(5 * time.Second); a.Queued() > 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // the next heartbeat may be on its way
		}
		if a.Queued() != 0 {
			t.Errorf("%d bytes wait", a.Queued())
		}
		if err := a.Write(&clusterv1.Record{Record: &clusterv1.Record_Claim{Claim: &clusterv1.Claim{Lease: "\xff"}}}); err == nil {
			t.Error("a text that is not UTF-8 was written")
		}
		if err := a.Write(taped(kindAct, 1, strings.Repeat("x", 800<<10))); !errors.Is(err, cluster.ErrTooLarge) {
			t.Errorf("a record that Kafka does not take: %v", err)
		}
		a.stop()
		if err := a.Claim("y"); !errors.Is(err, cluster.ErrAway) || <-live {
			t.Errorf("a claim behind the goodbye: %v", err)
		}
	})
}

// TestHoldGivesUp: a run that returns gives up the lease to others that want it, and one whose
// context ends does, too.
func TestHoldGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := clustertest.New()
		a, b := start(t, log, "a"), start(t, log, "b")
		synctest.Wait()
		var mu sync.Mutex
		generations, by := []uint64{}, ""
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for name, r := range map[string]*running{"a": a, "b": b} {
			work.Go(func() {
				r.Hold(ctx, "x", func(ctx context.Context, generation uint64) {
					mu.Lock()
					generations, by = append(generations, generation), by+name
					last := len(generations) == 6
					mu.Unlock()
					if last {
						<-ctx.Done()
					}
					time.Sleep(time.Second)
				})
			})
		}
		time.Sleep(20 * time.Second)
		cancel()
		work.Wait()
		synctest.Wait()
		if !slices.IsSorted(generations) || len(slices.Compact(generations)) != 6 || !strings.Contains(by, "a") || !strings.Contains(by, "b") {
			t.Errorf("generations %v by %s", generations, by)
		}
		a.View(func(s *cluster.State) {
			if l, held := s.Lease("x"); held {
				t.Errorf("%+v is held by nobody", l)
			}
		})
		a.stop()
		b.stop()
	})
}
