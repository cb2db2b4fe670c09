package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// life does the work of the node until inner ends, or ends it with the error
// that stopped it.
func (n *Node) life(inner context.Context, end context.CancelCauseFunc) {
	from, err := n.bootstrap(inner)
	if err != nil {
		end(err)
		return
	}
	n.becomeBoot()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { endWith(end, n.queue.run(inner, n.opts.Log)) })
	work.Go(func() { n.pulse(inner) })
	work.Go(func() { n.beats(inner) })
	work.Go(func() { n.Hold(inner, LeaseCheckpoint, n.checkpoints) })
	n.mu.Lock()
	n.sayHello() // if there is nothing to read
	n.mu.Unlock()
	endWith(end, n.opts.Log.Read(inner, from, func(index uint64, value []byte) error { return n.take(index, value) }))
}

func endWith(end context.CancelCauseFunc, err error) {
	if err != nil {
		end(err)
	}
}

// take applies one value of the log.
func (n *Node) take(index uint64, value []byte) error {
	e := new(clusterv1.Envelope)
	if value != nil {
		decoded, err := Decode(value)
		if err != nil {
			n.opts.Logger.Warn("a value of the control topic is not of a node: it is passed over, here as everywhere",
				"index", index, "error", err)
		} else {
			e = decoded
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.read.applied = index
	n.pages.grown(len(value))
	events := n.state.Apply(index, e)
	n.returned(index, e)
	for _, event := range events {
		if err := n.changedTo(event); err != nil {
			return err
		}
	}
	if len(events) > 0 {
		n.broadcast()
	}
	n.sayHello()
	return nil
}

// returned notes that a heartbeat of this boot has come back.
func (n *Node) returned(index uint64, e *clusterv1.Envelope) {
	m := n.state.nodes[n.boot.Load()]
	if e.GetBoot() != n.boot.Load() || m == nil {
		return
	}
	poke(n.pages.kick)
	for _, rec := range e.GetRecords() {
		if c := rec.GetClaim(); c != nil {
			n.queue.answered(c.GetLease())
			n.broadcast()
		}
	}
	if m.beats[patience-1] == index && n.out.sent > 0 {
		if n.now()-n.out.sent > beatEvery {
			n.out.calm = index
		}
		if !n.me.leaving {
			n.until.Store(int64(n.out.sent + liveFor))
		}
		n.out.sent = 0
		poke(n.woken)
		poke(n.back)
	}
}

// changedTo follows what happens to this node.
func (n *Node) changedTo(e Event) error {
	switch e.Kind {
	case CheckpointBegan:
		n.pages.now = since{at: n.now()}
	case CheckpointEnded:
		n.pages.whole = n.pages.now
	default:
	}
	if e.Boot != n.boot.Load() {
		return nil
	}
	switch e.Kind {
	case Joined:
		n.me.joined = true
	case CheckpointBegan:
		n.pages.snapshot, n.pages.of = n.state.AppendState(nil), n.state.index
	case Gone:
		n.me.joined = false
		n.until.Store(0)
		poke(n.woken)
		switch e.Reason {
		case Left:
			n.me.left = true
		case Replaced:
			return fmt.Errorf("another node has come with the name %q: give each node a name of its own, or leave this one stopped", n.opts.Name)
		default:
			n.opts.Logger.Warn("this node was silent for so long that the others took it for dead; it comes back as a new one",
				"node", n.opts.Name, "applied", n.read.applied)
			n.becomeBoot()
		}
	default:
	}
	return nil
}

// becomeBoot makes the node another one, which has not said hello.
func (n *Node) becomeBoot() {
	boot := n.opts.Boot()
	for boot == 0 {
		boot = n.opts.Boot()
	}
	n.boot.Store(boot)
	n.queue.restart(boot)
	n.out.sent = 0
}

// sayHello does so once for each boot, when the node has caught up.
func (n *Node) sayHello() {
	if n.read.applied < n.read.target || n.me.joined || n.out.sent > 0 || n.me.leaving {
		return
	}
	n.out.sent = max(n.now(), 1)
	n.must(&clusterv1.Record{Record: &clusterv1.Record_Hello{
		Hello: &clusterv1.Hello{Name: n.opts.Name, Read: n.read.applied, Version: n.opts.Version},
	}})
	n.queue.setOpen(true)
}

func (n *Node) must(records ...*clusterv1.Record) {
	if err := n.queue.put(true, records...); err != nil {
		n.opts.Logger.Error("a record for the control topic cannot be written", "error", err)
	}
}

// beats writes a heartbeat each second, or as soon as the one before has come back if
// that takes longer, and expires with it who has been silent.
func (n *Node) beats(ctx context.Context) {
	for {
		select {
		case <-time.After(beatEvery):
		case <-ctx.Done():
			return
		}
		beat := &clusterv1.Heartbeat{Version: n.opts.Version}
		if n.opts.Heads != nil {
			beat.Streams = n.opts.Heads()
		}
		for !n.beat(beat) {
			select {
			case <-n.back:
			case <-ctx.Done():
				return
			}
		}
	}
}

// beat writes a heartbeat unless one is out.
func (n *Node) beat(beat *clusterv1.Heartbeat) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.me.joined || n.me.leaving || n.out.sent > 0 {
		return false
	}
	n.out.sent = n.now()
	beat.Checkpoint = n.state.checkpoint
	for _, e := range n.state.silent(n.Boot(), n.out.calm) {
		n.must(&clusterv1.Record{Record: &clusterv1.Record_Expire{Expire: e}})
	}
	n.must(&clusterv1.Record{Record: &clusterv1.Record_Heartbeat{Heartbeat: beat}})
	return true
}

// pulse tells when the node becomes live and when it must pause.
func (n *Node) pulse(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	was := false
	defer func() {
		if was && n.opts.Live != nil {
			n.opts.Live(false)
		}
	}()
	for {
		select {
		case <-n.woken:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		left := time.Duration(n.until.Load()) - n.now()
		if left > 0 {
			timer.Reset(left)
		}
		if live := left > 0; live != was {
			was = live
			n.mu.Lock()
			n.broadcast()
			n.mu.Unlock()
			if n.opts.Live != nil {
				n.opts.Live(live)
			}
		}
	}
}

// broadcast wakes who waits for a change.
func (n *Node) broadcast() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// goodbye tells the others, if that is quick.
func (n *Node) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, goodbyeWait)
	defer cancel()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.me.leaving = true
	n.queue.setOpen(false)
	n.until.Store(0)
	poke(n.woken)
	if !n.me.joined && n.out.sent == 0 {
		return // it never said hello
	}
	n.must(&clusterv1.Record{Record: &clusterv1.Record_Goodbye{Goodbye: &clusterv1.Goodbye{}}})
	for !n.me.left && ctx.Err() == nil {
		changed := n.changed
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		n.mu.Lock()
	}
}

// Status is how a node is doing.
type Status struct {
	CaughtUp        bool   // it has read to where the log ended when it started
	Applied, Target uint64 // indexes: how far it has read, and how far it had to
	Joined          bool   // the others count on it
	Live            bool   // it may act
	Queued          int    // bytes that wait to be written
	Problem         string // what keeps it from starting, if anything does
}

// Status returns how the node is doing.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Status{
		CaughtUp: n.read.ready && n.read.applied >= n.read.target, Applied: n.read.applied, Target: n.read.target,
		Joined: n.me.joined, Live: n.Live(), Queued: n.Queued(), Problem: n.read.problem,
	}
}
