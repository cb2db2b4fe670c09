package storage

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// planCache keeps the plans of patterns for sealed segments: making one walks
// over the topics of the segment, and a subscriber that catches up asks again
// for each chunk.
type planCache struct {
	mu    sync.Mutex
	plans map[planKey]plan
	order []planKey // oldest first
}

type planKey struct {
	segment *segment
	filter  string
}

const (
	maxPlans      = 64
	maxPlanTopics = 50_000 // more are not looked through: the segment is scanned
)

// planSealed makes the plan for a sealed segment from the offset after on, of at
// most n offsets.
func (l *core) planSealed(seg *segment, f protocol.Filter, after uint64, n int) (plan, error) {
	if f.Exact() {
		return l.planTopic(seg, f.String(), func(post *postings, records int) plan {
			if post.last > after && post.dense(records) {
				return plan{scan: true}
			}
			offsets := post.after(nil, after, n)
			return plan{offsets: offsets, all: len(offsets) < n}
		})
	}
	p, err := l.plans.get(l, seg, f)
	if err != nil || p.scan {
		return p, err
	}
	i, found := slices.BinarySearch(p.offsets, after)
	if found {
		i++
	}
	rest := p.offsets[i:]
	n = min(len(rest), n)
	return plan{offsets: rest[:n], all: n == len(rest)}, nil
}

// planTopic makes the plan for one topic, which needs no cache. choose gets the
// stored postings and the number of records in the segment.
func (l *core) planTopic(seg *segment, topic string, choose func(post *postings, records int) plan) (p plan, err error) {
	err = l.handles.view(seg, func(tx *bbolt.Tx) error {
		v, err := findTopic(tx.Bucket(bucketIndex), topic)
		if v == nil || err != nil {
			p.all = true
			return err
		}
		post, err := decodePostings(v)
		if err != nil {
			return err
		}
		p = choose(&post, int(seg.info.records))
		return nil
	})
	return p, err
}

// get returns the plan of a pattern for the whole segment.
func (c *planCache) get(l *core, seg *segment, f protocol.Filter) (plan, error) {
	k := planKey{seg, f.String()}
	c.mu.Lock()
	p, ok := c.plans[k]
	c.mu.Unlock()
	if ok {
		return p, nil
	}
	err := l.handles.view(seg, func(tx *bbolt.Tx) (err error) {
		p, err = planPattern(tx.Bucket(bucketIndex), f, int(seg.info.records))
		return err
	})
	if err != nil {
		return plan{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plans == nil {
		c.plans = make(map[planKey]plan)
	}
	if _, ok := c.plans[k]; !ok {
		c.plans[k] = p
		c.order = append(c.order, k)
	}
	if len(c.order) > maxPlans {
		delete(c.plans, c.order[0])
		c.order = c.order[1:]
	}
	return p, nil
}

// planPattern looks through the topics that may match: those that begin as the
// pattern does before its first wildcard.
func planPattern(index *bbolt.Bucket, f protocol.Filter, records int) (plan, error) {
	text := f.String()
	prefix := []byte(text[:strings.IndexAny(text, "*>")])
	p := plan{all: true}
	count, topics := 0, 0
	err := eachTopic(index, prefix, func(topic, v []byte) (bool, error) {
		if topics++; topics > maxPlanTopics {
			p.scan = true
			return false, nil
		}
		if !bytes.HasPrefix(topic, prefix) {
			return false, nil
		}
		if !f.Match(string(topic)) {
			return true, nil
		}
		post, err := decodePostings(v)
		if err != nil {
			return false, err
		}
		if count += post.count; count*sparse >= records {
			p.scan = true
			return false, nil
		}
		p.offsets = post.after(p.offsets, 0, post.count)
		return true, nil
	})
	if p.scan {
		p.offsets = nil
	}
	slices.Sort(p.offsets)
	return p, err
}

// missing is the damage of an offset that the log must have and has not.
func missing(offset uint64) error {
	return fmt.Errorf("%w: the block with offset %d is missing", errDamaged, offset)
}
