package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

func newKafkaStatusCommand() *cobra.Command {
	var from configFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster: topics, nodes, who does what, and what is wrong",
		Long: `Show the cluster as it stands in Kafka: the topics with their partitions, the nodes
with their heartbeats and how far each is behind, and who looks after which
consumer. Each thing that is not as it should be is one sentence, with what to
do about it; then the command ends with status 1.`,
		Example: `  tidewire kafka status --config /etc/tidewire.yaml
  tidewire kafka status --config /etc/tidewire.yaml --json`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := openKafkaTool(&from, c.OutOrStdout(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer t.close()
			s, err := t.status(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(t.out, s)
			} else {
				err = t.printStatus(s)
			}
			if err == nil && len(s.Problems) > 0 {
				err = errors.New(countOf(len(s.Problems), "thing") + " to look after, see above")
			}
			return err
		},
	}
	from.addFile(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// clusterStatus is what `tidewire kafka status` prints.
type clusterStatus struct {
	Prefix   string        `json:"prefix"`
	Streams  []topicStatus `json:"streams"`
	Nodes    []nodeStatus  `json:"nodes"`
	Leases   []leaseStatus `json:"leases"`
	Problems []string      `json:"problems"` // must be mended
	Notes    []string      `json:"notes"`    // could be better
}

type topicStatus struct {
	Stream     string            `json:"stream"`
	Topic      string            `json:"topic"`
	Term       string            `json:"term"`
	Terms      int               `json:"terms"`
	Partitions []partitionStatus `json:"partitions"`
}

type partitionStatus struct {
	Leader   int32 `json:"leader"` // -1: none
	Replicas int   `json:"replicas"`
	InSync   int   `json:"in_sync"`
	Start    int64 `json:"start"`
	End      int64 `json:"end"`
}

type nodeStatus struct {
	Name  string           `json:"name"`
	Boot  string           `json:"boot"`
	Beats bool             `json:"beats"` // a heartbeat came while the command looked
	Lag   map[string]int64 `json:"lag"`   // records that it has not read yet, by stream
}

type leaseStatus struct {
	Name       string `json:"name"`
	Node       string `json:"node"`
	Generation uint64 `json:"generation"`
}

// listenTime is how long status waits for heartbeats.
const listenTime = 2500 * time.Millisecond

// status looks at everything.
func (t *kafkaTool) status(ctx context.Context) (*clusterStatus, error) {
	before, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	s := &clusterStatus{
		Prefix: t.settings.Kafka.Prefix, Streams: []topicStatus{}, Nodes: []nodeStatus{},
		Leases: []leaseStatus{}, Problems: []string{}, Notes: []string{},
	}
	for _, name := range before.Streams() {
		if d := before.Definition(name); !cluster.Removed(d) {
			if err := t.lookAt(ctx, s, d, len(before.Terms(name))); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case len(s.Streams) == 0:
		s.Problems = append(s.Problems, "no stream is defined: run `tidewire kafka init`")
	default:
		for _, d := range before.Check(wantedDefinitions(t.settings)) {
			s.Problems = append(s.Problems, d.Error())
		}
	}
	after := before
	if len(before.Nodes()) > 0 {
		select {
		case <-time.After(listenTime):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if after, err = t.read(ctx); err != nil {
			return nil, err
		}
	}
	s.nodes(before, after)
	return s, nil
}

// lookAt looks at the topic of a stream.
func (t *kafkaTool) lookAt(ctx context.Context, s *clusterStatus, d *clusterv1.Definition, terms int) error {
	def := bridge.DefinitionOf(d)
	st := topicStatus{Stream: def.Stream, Topic: def.Topic, Term: def.Term.String(), Terms: terms, Partitions: []partitionStatus{}}
	defer func() { s.Streams = append(s.Streams, st) }()
	topic, bounds, err := t.bounds(ctx, def.Topic)
	switch {
	case kafka.KindOf(err) == kafka.NoTopic:
		s.Problems = append(s.Problems, fmt.Sprintf("the stream %s has no topic %s in Kafka: put it back, or, if what it held may be lost, run `tidewire kafka new-term %s`", def.Stream, def.Topic, def.Stream))
		return nil
	case err != nil:
		return err
	}
	for i, p := range topic.Partitions {
		st.Partitions = append(st.Partitions, partitionStatus{
			Leader: p.Leader, Replicas: len(p.Replicas), InSync: len(p.InSync), Start: bounds[i].Start, End: bounds[i].End,
		})
		if len(p.InSync) < len(p.Replicas) {
			s.Notes = append(s.Notes, fmt.Sprintf("partition %d of %s has %d of %d copies in sync: a node of Kafka is away, or slow", i, def.Topic, len(p.InSync), len(p.Replicas)))
		}
	}
	if t.stream(def.Stream) == nil {
		return nil // the comparison with the configuration tells
	}
	findings, err := def.Check(ctx, t.client, t.local(def.Stream))
	for _, f := range findings {
		if f.Fatal {
			s.Problems = append(s.Problems, f.Sentence)
		} else {
			s.Notes = append(s.Notes, f.Sentence)
		}
	}
	return err
}

// bounds asks for a topic, and where its partitions begin and end.
func (t *kafkaTool) bounds(ctx context.Context, name string) (topic kafka.Topic, bounds []kafka.Bounds, err error) {
	err = t.ask(ctx, func(ctx context.Context) error {
		if topic, err = t.client.Topic(ctx, name); err != nil {
			return err
		}
		bounds, err = t.client.Bounds(ctx, topic)
		return err
	})
	return topic, bounds, err
}

// nodes says who is there, and who does what. before and after lie apart in time.
func (s *clusterStatus) nodes(before, after *cluster.State) {
	names := make(map[uint64]string)
	for _, n := range after.Nodes() {
		was, known := before.Node(n.Boot)
		st := nodeStatus{
			Name: n.Name, Boot: strconv.FormatUint(n.Boot, 36), Lag: map[string]int64{},
			Beats: !known || n.Seen > was.Seen,
		}
		names[n.Boot] = n.Name
		for _, h := range n.Heads {
			s.lag(&st, h)
		}
		s.Nodes = append(s.Nodes, st)
	}
	s.silent()
	slices.SortFunc(s.Nodes, func(a, b nodeStatus) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range after.Leases("") {
		s.Leases = append(s.Leases, leaseStatus{Name: l.Name, Node: names[l.Boot], Generation: l.Generation})
	}
}

// silent tells of nodes without a heartbeat. While another one has some, it takes those
// for dead by itself.
func (s *clusterStatus) silent() {
	beats := slices.ContainsFunc(s.Nodes, func(n nodeStatus) bool { return n.Beats })
	for _, n := range s.Nodes {
		switch {
		case n.Beats:
		case beats:
			s.Notes = append(s.Notes, fmt.Sprintf("the node %s is silent: in a few seconds the others take it for dead, and take over what it did", n.Name))
		default:
			s.Problems = append(s.Problems, fmt.Sprintf("the node %s is silent, and no other one is there to take over: look at its log, or start one", n.Name))
		}
	}
}

// lag counts what a node has not read of a stream.
func (s *clusterStatus) lag(node *nodeStatus, h *clusterv1.StreamHeads) {
	for _, st := range s.Streams {
		if st.Stream != h.GetStream() {
			continue
		}
		for _, head := range h.GetHeads() {
			if i := int(head.GetPartition()); i < len(st.Partitions) {
				p := st.Partitions[i]
				node.Lag[st.Stream] += max(p.End-max(int64(head.GetOffset()), p.Start), 0)
			}
		}
	}
}

// printStatus prints it for people.
func (t *kafkaTool) printStatus(s *clusterStatus) error {
	rows := [][]string{{"STREAM", "TOPIC", "PARTITION", "LEADER", "IN SYNC", "FIRST", "NEXT"}}
	for _, st := range s.Streams {
		for i, p := range st.Partitions {
			rows = append(rows, []string{
				st.Stream, st.Topic, fmt.Sprint(i), fmt.Sprint(p.Leader), fmt.Sprintf("%d/%d", p.InSync, p.Replicas), fmt.Sprint(p.Start), fmt.Sprint(p.End),
			})
		}
	}
	if err := printTable(t.out, rows); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(t.out)
	rows = [][]string{{"NODE", "HEARTBEAT", "BEHIND", "DOES"}}
	for _, n := range s.Nodes {
		beats := "silent"
		if n.Beats {
			beats = "yes"
		}
		rows = append(rows, []string{n.Name, beats, fmt.Sprint(n.behind()), s.does(n.Name)})
	}
	if len(s.Nodes) == 0 {
		rows = [][]string{{"no node is there"}}
	}
	if err := printTable(t.out, rows); err != nil {
		return err
	}
	for _, lines := range [][]string{s.Notes, s.Problems} {
		for _, line := range lines {
			_, _ = fmt.Fprintf(t.out, "\n%s\n", line)
		}
	}
	return nil
}

// behind is in records.
func (n *nodeStatus) behind() (sum int64) {
	for _, lag := range n.Lag {
		sum += lag
	}
	return sum
}

// does lists the leases of a node.
func (s *clusterStatus) does(node string) string {
	var all []string
	for _, l := range s.Leases {
		if l.Node == node {
			all = append(all, l.Name)
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, " ")
}
