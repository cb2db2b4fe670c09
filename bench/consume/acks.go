package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidewire/tidewire/bench/rig"
)

// A way is one of those in which members can work.
type way struct {
	how     string // and how many at once
	pending int    // messages that are delivered and not acknowledged, at most
}

func (w way) String() string { return fmt.Sprintf("%s with %d pending", w.how, w.pending) }

// ways combines what can be tried.
func ways(pendings []int, hows ...string) (all []way) {
	for _, how := range hows {
		for _, pending := range pendings {
			all = append(all, way{how, pending})
		}
	}
	return all
}

// trio is the servers that take turns.
type trio struct {
	*bench
	ours, nats, always *server
	runs               int
}

// trio starts them and stores messages in each: so many, and a fifth of it apart
// to find the best way with.
func (b *bench) trio(messages int) (*trio, error) {
	t := &trio{bench: b}
	if err := t.start(messages); err != nil {
		return nil, errors.Join(err, t.stop())
	}
	return t, nil
}

func (t *trio) start(messages int) (err error) {
	if t.ours, err = t.bench.ours(); err != nil {
		return err
	}
	if t.nats, err = t.bench.nats("default", t.newDir()); err != nil {
		return err
	}
	// A sync for each message would take minutes: it gets them as the other one.
	if t.always, err = t.bench.nats("default", t.newDir()); err != nil {
		return err
	}
	for _, n := range []int{messages, messages / 5} {
		for _, s := range []*server{t.ours, t.nats, t.always} {
			if _, _, err := t.run(s, way{how: "fill"}, n); err != nil {
				return err
			}
		}
	}
	if err := t.always.Quit(); err != nil {
		return err
	}
	t.always, err = t.bench.nats("always", t.always.Dir)
	return err
}

func (t *trio) stop() error {
	return errors.Join(t.ours.stop(), t.nats.stop(), t.always.stop())
}

// run runs a step on so many messages, with a new consumer if it needs one. It
// returns what the step prints, and its CPU seconds.
func (t *trio) run(s *server, w way, messages int) (printed, cpu float64, err error) {
	t.runs++
	step := "nats"
	if s == t.ours {
		step = "ours"
	}
	return t.timedStep(step, s.Addr, fmt.Sprint("run", t.runs), messages, w.how, w.pending)
}

// take has a new consumer's members take so many messages in some way, and
// returns thousands a second, and for a million the CPU seconds of the server, and
// of it and the members together.
func (t *trio) take(s *server, w way, messages int) ([]float64, error) {
	before, err := s.CPU()
	if err != nil {
		return nil, err
	}
	seconds, clients, err := t.run(s, w, messages)
	if err != nil {
		return nil, err
	}
	after, err := s.CPU()
	server, million := after-before, float64(messages)/1e6
	return []float64{million * 1000 / seconds, server / million, (server + clients) / million}, err
}

// best finds the fastest way of a server with a fifth of the messages.
func (t *trio) best(s *server, messages int, of []way) (way, error) {
	sides := make([]func() ([]float64, error), len(of))
	for i, w := range of {
		sides[i] = func() ([]float64, error) { return t.take(s, w, messages/5) }
	}
	rates, err := turns(3, sides...)
	if err != nil {
		return way{}, err
	}
	best, list := 0, make([]string, len(of))
	for i := range of {
		list[i] = fmt.Sprintf("%s %.0f", of[i], slices.Max(rates[i][0]))
		if slices.Max(rates[i][0]) > slices.Max(rates[best][0]) {
			best = i
		}
	}
	name := map[*server]string{t.ours: "ours", t.nats: "NATS", t.always: "NATS, sync always"}[s]
	t.note("ways of %s tried with %d messages, best of 3 in k/s: %s. Taken: %s.", name, messages/5, strings.Join(list, ", "), of[best])
	return of[best], nil
}

// acks is how fast a consumer's messages are taken and acknowledged.
func (b *bench) acks() (rows []*rig.Row, err error) {
	t, err := b.trio(b.messages)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	mine, err1 := t.best(t.ours, b.messages, ways([]int{256, 1024, 4096, 16_384}, "ack"))
	// NATS's own limit of what is pending is 1,000 for a consumer.
	its, err2 := t.best(t.nats, b.messages, slices.Concat(
		ways([]int{1000}, "fetch-1", "consume-1"),
		ways([]int{1000, 10_000}, "fetch-16", "fetch-256", "consume-16", "consume-256", "push")))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return t.compare(b.messages, fmt.Sprintf("explicit acks of %d messages of %d bytes, %d members", b.messages, payloadBytes, members), mine, its, []float64{5, 0})
}

// confirmations is how fast they are when each one waits for the answer.
func (b *bench) confirmations() (rows []*rig.Row, err error) {
	t, err := b.trio(b.confirmed)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	mine, err1 := t.best(t.ours, b.confirmed, ways([]int{16_384}, "confirm-256", "confirm-1024", "confirm-4096", "confirm-16384"))
	its, err2 := t.best(t.always, b.confirmed, slices.Concat(
		ways([]int{1000}, "confirm-64", "confirm-256"),
		ways([]int{16_384}, "confirm-256", "confirm-1024", "confirm-4096", "confirm-16384")))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	b.note("NATS answers an acknowledgement from memory and writes a consumer's state at most every 100 ms, with either sync_interval; ours is answered when it is on disk.")
	return t.compare(b.confirmed, fmt.Sprintf("confirmed acks of %d messages, each awaited by a goroutine", b.confirmed), mine, its, []float64{0, 10})
}

// compare lets the servers take turns. The aims are beside NATS as it comes and
// beside NATS with sync always.
func (t *trio) compare(messages int, name string, mine, its way, aims []float64) ([]*rig.Row, error) {
	side := func(s *server, w way) func() ([]float64, error) {
		return func() ([]float64, error) { return t.take(s, w, messages) }
	}
	single := way{"single" + mine.how, mine.pending}
	all, err := turns(t.rounds, side(t.ours, mine), side(t.nats, its), side(t.always, its), side(t.ours, single))
	if err != nil {
		return nil, err
	}
	ours, nats, always, apart := all[0], all[1], all[2], all[3]
	against := func(name string, figure int, ours, peer []rig.Sample, aim float64) *rig.Row {
		unit := []string{" k/s", " s", " s"}[figure]
		return &rig.Row{
			Name: name, Ours: ours[figure].Text(unit), Beside: peer[figure].Text(unit),
			Ratio: rig.Each(ours[figure], peer[figure], rig.Over), Aim: aim, Least: true,
		}
	}
	return []*rig.Row{
		against(name+"; NATS as it comes", 0, ours, nats, aims[0]),
		against("the same; NATS with sync_interval always", 0, ours, always, aims[1]),
		against("to compare: ours with a frame for each ack; NATS as it comes", 0, apart, nats, 0),
		against("to compare: CPU of the server for a million; NATS as it comes", 1, ours, nats, 0),
		against("to compare: the same; NATS with sync_interval always", 1, ours, always, 0),
		against("to compare: CPU of the server and the members for a million; NATS as it comes", 2, ours, nats, 0),
	}, nil
}
