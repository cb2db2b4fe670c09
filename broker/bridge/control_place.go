package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// controlPlace is which control topic a node has read, and how far: kept in a small file. It
// is no state, which is in the topic alone; it tells the topic from another one.
type controlPlace struct {
	file string

	mu    sync.Mutex
	now   controlForm
	saved controlForm
}

type controlForm struct {
	ID       string `json:"id"`              // of the topic, given by Kafka
	Index    uint64 `json:"index"`           // of the newest value that was read
	Checksum uint64 `json:"checksum,string"` // of that value
}

// openControlPlace reads the file, which need not be there. Without a file's name the place is nil,
// and knows nothing.
func openControlPlace(file string) (*controlPlace, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // methods of a nil place do nothing
	}
	p := &controlPlace{file: file}
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("read the place in the control topic: %w", err)
	}
	if err := json.Unmarshal(b, &p.now); err != nil {
		return nil, fmt.Errorf("%s cannot be read (%w): remove it to go on with what the control topic holds now", file, err)
	}
	p.saved = p.now
	return p, nil
}

// read notes a value that was read.
func (p *controlPlace) read(id kafka.TopicID, index uint64, value []byte) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if index > p.now.Index {
		p.now = controlForm{ID: id.String(), Index: index, Checksum: xxhash.Sum64(value)}
	}
}

func (p *controlPlace) save() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == p.saved {
		return nil
	}
	b, err := json.Marshal(p.now)
	if err != nil {
		return err
	}
	next := p.file + ".next"
	if err := os.WriteFile(next, append(b, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.Rename(next, p.file); err != nil {
		return err
	}
	p.saved = p.now
	return nil
}

// recognise refuses a topic that is not the one that this node has read before, or has
// lost what this node has read.
func (c *Control) recognise(ctx context.Context) error {
	if c.known == nil || c.known.now.ID == "" {
		return nil
	}
	was := c.known.now
	if was.ID != c.id.String() {
		return c.recreated(fmt.Errorf("its id was %s and is %s", was.ID, c.id))
	}
	first, last, err := c.Bounds(ctx)
	if err != nil {
		return err
	}
	if last < was.Index {
		return c.rolledBack(fmt.Sprintf("it ends at offset %d, and this node has read it up to %d", last, was.Index))
	}
	if was.Index < first {
		return nil // removed by retention
	}
	same := false
	err = c.Read(ctx, was.Index, func(index uint64, value []byte) error {
		same = index == was.Index && xxhash.Sum64(value) == was.Checksum
		return errControlSeen
	})
	switch {
	case !errors.Is(err, errControlSeen):
		return errors.Join(err, ctx.Err())
	case !same:
		return c.rolledBack(fmt.Sprintf("the record at offset %d is not the one that this node has read", was.Index-1))
	}
	return nil
}

var errControlSeen = errors.New("seen")

func (c *Control) recreated(cause error) error {
	return fmt.Errorf("the control topic %s was deleted and created again (%w): the streams, consumers and leases that it held are lost, and so is what proves that a broker has written a record. "+
		"Stop all nodes and begin with another kafka.prefix; or delete the cluster's topics in Kafka, move the data directory of each node away, and run 'tidewire kafka init'",
		c.opts.Topic, cause)
}

func (c *Control) rolledBack(what string) error {
	return fmt.Errorf("the control topic %s has lost records: %s. %s", c.opts.Topic, what, c.wayOut())
}

func (c *Control) wayOut() string {
	if c.opts.File == "" {
		return "See 'tidewire kafka status'"
	}
	return fmt.Sprintf("To go on with what it holds now, stop all nodes, remove %s on each, and see 'tidewire kafka status'", c.opts.File)
}
