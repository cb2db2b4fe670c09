package judge

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A Plan says what load to send. Only URLs and Dir are needed.
type Plan struct {
	URLs         []string      // brokers, such as ws://127.0.0.1:7070; whoever reconnects takes the next
	Dir          string        // for the files; must not hold another run
	Prefix       string        // first token of all topics (judge)
	Publishers   int           // (4)
	Subscribers  int           // connections with several subscriptions each (4)
	Topics       int           // (8)
	Messages     int           // by each publisher; 0 = until Duration is over or Stop is called
	Duration     time.Duration // of publishing; 0 = no bound
	PayloadBytes int           // (128)
	HTTPShare    float64       // part of the turns that publishers take over HTTP instead of WebSocket
	Rate         int           // messages a second of all publishers; 0 = no bound
	Keys         int           // ordering keys that most of the messages have; 0 = none has one
	Consumers    []Consumer    // whose members share the messages of all topics
	Seed         uint64        // of everything that is random; 0 = from the clock
	Tuning       Tuning
}

// Tuning holds what most plans leave alone.
type Tuning struct {
	Window       int           // unanswered messages of one publisher (64)
	Repeats      float64       // chance after each turn that an answered message is sent again (0.2); below 0 = never
	Patience     time.Duration // without any progress, after which a wait is in vain (30 s)
	ReconnectMin time.Duration // (50 ms)
	ReconnectMax time.Duration // (1 s)
	CutEvery     time.Duration // mean time after which a subscriber drops its own connection; 0 = never
	PauseEvery   time.Duration // mean time after which a slow subscriber stops reading for a while; 0 = never
	PauseFor     time.Duration // at most (1 s)
	SlowShare    float64       // part of the subscribers that are slow (1); below 1 their connections buffer little
	LeaveEvery   time.Duration // mean time after which a member of a consumer leaves or freezes; 0 = never
	Nodes        bool          // the URLs are nodes of one cluster: where one dies, another takes its consumers over
	Retention    bool          // the broker may delete by retention during the run
	Token        string        // for Authorization: Bearer
}

func (p Plan) withDefaults() Plan {
	setDefault(&p.Prefix, "judge")
	setDefault(&p.Publishers, 4)
	setDefault(&p.Subscribers, 4)
	setDefault(&p.Topics, 8)
	setDefault(&p.PayloadBytes, 128)
	setDefault(&p.Seed, uint64(time.Now().UnixNano()))
	setDefault(&p.Tuning.Window, 64)
	setDefault(&p.Tuning.Repeats, 0.2)
	setDefault(&p.Tuning.Patience, 30*time.Second)
	setDefault(&p.Tuning.ReconnectMin, 50*time.Millisecond)
	setDefault(&p.Tuning.ReconnectMax, time.Second)
	setDefault(&p.Tuning.PauseFor, time.Second)
	setDefault(&p.Tuning.SlowShare, 1)
	p.Consumers = slices.Clone(p.Consumers)
	for i := range p.Consumers {
		p.Consumers[i].setDefaults()
	}
	return p
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

func (p Plan) check() error {
	switch {
	case len(p.URLs) == 0:
		return errors.New("the plan has no URL")
	case p.Dir == "":
		return errors.New("the plan has no directory")
	case p.Publishers < 0 || p.Subscribers < 0 || p.Topics < 1:
		return errors.New("the plan needs at least one topic, and no negative numbers")
	}
	for _, c := range p.Consumers {
		if c.Name == "" || c.Members < 1 {
			return errors.New("each consumer of the plan needs a name, and a member at a WebSocket that creates it")
		}
	}
	return nil
}

const planFile = "plan.json"

// save writes the plan beside the files of the run, without the token.
func (p Plan) save() error {
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of the run: %w", err)
	}
	p.Tuning.Token = ""
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(p.Dir, planFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("begin a run (each needs a directory of its own): %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}

func loadPlan(dir string) (Plan, error) {
	var p Plan
	text, err := os.ReadFile(filepath.Join(dir, planFile))
	if err != nil {
		return p, fmt.Errorf("read the plan: %w", err)
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("read the plan: %w", err)
	}
	return p, nil
}

// topic names a topic. Three tokens, so that wildcards have something to do.
func (p Plan) topic(i int) string { return fmt.Sprintf("%s.%d.t%d", p.Prefix, i%3, i) }

// want is a subscription that a subscriber is to hold.
type want struct{ filter, from string }

// wants spreads the kinds of subscription over the subscribers: exact topics,
// everything, wildcards that overlap with exact topics, few and many.
func (p Plan) wants(subscriber int) []want {
	all := p.Prefix + ".>"
	switch subscriber % 4 {
	case 0:
		return []want{{all, "earliest"}}
	case 1:
		var exact []want
		for i := range min(p.Topics, 3) {
			exact = append(exact, want{p.topic((subscriber + i) % p.Topics), "new"})
		}
		return exact
	case 2:
		return []want{
			{p.Prefix + ".*.t" + fmt.Sprint(subscriber%p.Topics), "new"},
			{p.Prefix + ".0.*", "earliest"},
			{all, "last:20"},
		}
	default:
		return []want{{p.Prefix + ".1.>", "-10m"}, {p.topic(0), "earliest"}, {all, "new"}}
	}
}

// startsLate: half of the subscribers begin with history to catch up with.
func startsLate(subscriber int) bool { return subscriber%4 >= 2 }
