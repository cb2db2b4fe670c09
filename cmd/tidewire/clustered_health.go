package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// heads says how far this node has come in each partition.
func (c *clustered) heads() []*clusterv1.StreamHeads {
	var all []*clusterv1.StreamHeads
	for _, s := range c.streams {
		d := s.Definition()
		h := &clusterv1.StreamHeads{Stream: d.Stream, Term: uint64(d.Term)}
		for i, p := range s.Partitions() {
			mark := p.Mark()
			h.Heads = append(h.Heads, &clusterv1.Head{
				Partition: uint32(i), Offset: uint64(mark.Offset + 1), Epoch: mark.Epoch, Checksum: mark.Checksum,
			})
		}
		all = append(all, h)
	}
	return all
}

// disperse asks the sessions to go elsewhere when the disk of this node takes nothing
// any more: what they could still get would only be what another crash forgets.
func (c *clustered) disperse(ctx context.Context, away func(reason string)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for was := false; ; {
		stuck := c.stuck(time.Now())
		if stuck && !was {
			away("the disk of this broker does not keep up")
		}
		was = stuck
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// stuckAfter is how long a disk may take nothing.
const stuckAfter = 5 * time.Second

func (c *clustered) stuck(now time.Time) bool {
	for _, s := range c.streams {
		for _, p := range s.Partitions() {
			if since := p.Unsynced(); !since.IsZero() && now.Sub(since) >= stuckAfter {
				return true
			}
		}
	}
	return false
}

// compare compares what the other nodes have read last with what Kafka has, once: this
// node may have lost its data, and with it what would tell that the topic is another
// one.
func (c *clustered) compare(ctx context.Context) {
	select {
	case <-c.live:
	case <-ctx.Done():
		return
	}
	var others []*clusterv1.StreamHeads
	c.node.View(func(s *cluster.State) {
		for _, n := range s.Nodes() {
			if n.Boot != c.node.Boot() {
				others = append(others, n.Heads...)
			}
		}
	})
	for _, h := range others {
		for _, s := range c.streams {
			if d := s.Definition(); d.Stream != h.GetStream() || uint64(d.Term) != h.GetTerm() {
				continue
			}
			for _, head := range h.GetHeads() {
				c.compareHead(ctx, s, head)
			}
		}
	}
}

func (c *clustered) compareHead(ctx context.Context, s *bridge.Stream, h *clusterv1.Head) {
	if int(h.GetPartition()) >= len(s.Partitions()) || h.GetOffset() == 0 {
		return
	}
	mark := bridge.Mark{Offset: int64(h.GetOffset()) - 1, Epoch: h.GetEpoch(), Checksum: h.GetChecksum()}
	if err := s.Partitions()[h.GetPartition()].Compare(ctx, mark); err != nil && ctx.Err() == nil {
		c.options.logger.Warn("what another node has read could not be found in Kafka", "stream", s.Definition().Stream, "partition", h.GetPartition(), "error", err)
	}
}

// ready lists why this node cannot do all its work.
func (c *clustered) ready() (reasons []string) {
	for _, s := range c.streams {
		if err := s.Ready(); err != nil {
			reasons = append(reasons, err.Error())
		}
	}
	switch st := c.node.Status(); {
	case st.Problem != "":
		reasons = append(reasons, "the control topic: "+st.Problem)
	case !st.CaughtUp:
		reasons = append(reasons, fmt.Sprintf("the control topic is being read: %d of %d records", st.Applied, st.Target))
	case !st.Joined:
		reasons = append(reasons, "the node has not joined the cluster yet")
	case !st.Live && c.control.Trouble() == nil:
		reasons = append(reasons, "the heartbeats of this node do not come back from Kafka")
	case !c.promised.Load():
		reasons = append(reasons, "the consumers of the configuration are not there yet")
	}
	return reasons
}

// degraded lists what is wrong on all nodes alike.
func (c *clustered) degraded() (all []string) {
	for _, s := range c.streams {
		all = append(all, s.Degraded()...)
	}
	if err := c.control.Trouble(); err != nil {
		all = append(all, "the control topic: "+err.Error())
	}
	return all
}
