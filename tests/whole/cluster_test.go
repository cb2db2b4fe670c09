package whole_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidewire/tidewire/tests/judge"
	"github.com/tidewire/tidewire/tests/kafka"
	"github.com/tidewire/tidewire/tests/kafka/kafkatest"
)

// nodes are three brokers on one Kafka.
type nodes struct {
	t       testing.TB
	kafka   *kafka.Cluster
	brokers []*broker
}

// startNodes starts Kafka, initializes the cluster and starts the brokers.
func startNodes(t *testing.T, o kafka.Options, env ...string) *nodes {
	t.Helper()
	n := layNodes(t, o, env...)
	n.init()
	for _, b := range n.brokers {
		b.launch()
	}
	n.ready(n.brokers...)
	return n
}

// layNodes starts Kafka and has everything ready for init.
func layNodes(t *testing.T, o kafka.Options, env ...string) *nodes {
	t.Helper()
	k := kafkatest.Start(t, o)
	n := &nodes{t: t, kafka: k}
	for i := range 3 {
		b := newBroker(t)
		b.env = append([]string{
			"TIDEWIRE_KAFKA_BROKERS=" + strings.Join(k.Addresses(kafka.Plain), ","),
			fmt.Sprintf("TIDEWIRE_KAFKA_NODE=node-%d", i), fmt.Sprintf("TIDEWIRE_KAFKA_REPLICATION=%d", len(k.Nodes())),
			"TIDEWIRE_STREAMS_MAIN_PARTITIONS=2", "TIDEWIRE_STREAMS_DEAD_PARTITIONS=2",
		}, append(env, small...)...)
		n.brokers = append(n.brokers, b)
	}
	return n
}

// init runs `tidewire kafka init`.
func (n *nodes) init() {
	n.t.Helper()
	n.tool("init")
}

// tool runs a command of `tidewire kafka` and returns what it prints.
func (n *nodes) tool(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatalf("tidewire kafka %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// try is tool for a command that may fail.
func (n *nodes) try(args ...string) (out string, err error) {
	cmd := n.brokers[0].command(n.t.Context())
	cmd.Args = append([]string{cmd.Args[0], "kafka"}, args...)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// ready waits until brokers are.
func (n *nodes) ready(all ...*broker) {
	n.t.Helper()
	for _, b := range all {
		within(n.t, 90*time.Second, "the broker is ready", func() bool {
			select {
			case <-b.exited:
				n.t.Fatalf("the broker ended at start: %v", b.cmd.ProcessState)
			default:
			}
			return status("http://"+b.admin+"/readyz") == 200
		})
	}
}

func (n *nodes) urls() (all []string) {
	for _, b := range n.brokers {
		all = append(all, b.url())
	}
	return all
}

// plan is load on all nodes.
func (n *nodes) plan() judge.Plan {
	seed := uint64(time.Now().UnixNano())
	n.t.Logf("seed %d", seed)
	return judge.Plan{
		URLs: n.urls(), Dir: filepath.Join(n.t.TempDir(), "run"),
		Publishers: 4, Subscribers: 6, Topics: 12, PayloadBytes: 300, HTTPShare: 0.3, Rate: 600, Seed: seed,
		Tuning: judge.Tuning{Patience: time.Minute},
	}
}

// judged is load that is being judged.
type judged struct {
	*judge.Load
	n     *nodes
	plan  judge.Plan
	pause *pauses
}

func (n *nodes) judge(plan judge.Plan) *judged {
	n.t.Helper()
	l, err := judge.Start(n.t.Context(), plan)
	if err != nil {
		n.t.Fatal(err)
	}
	return &judged{Load: l, n: n, plan: plan, pause: watchPauses(l)}
}

// goesOn waits until messages are answered and delivered again, for at least a
// time.
func (j *judged) goesOn(least time.Duration) {
	j.n.t.Helper()
	answered, received, began := j.Answered(), j.Received(), time.Now()
	within(j.n.t, 90*time.Second, "the load goes on", func() bool {
		return j.Answered() > answered+100 && j.Received() > received+100 && time.Since(began) > least
	})
}

// verdict ends the load and prints what was found.
func (j *judged) verdict() *judge.Report {
	t := j.n.t
	t.Helper()
	longest := j.pause.end()
	j.Stop()
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	if err := j.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	r, err := judge.Verdict(j.plan.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("answered %d, delivered %d, lost %d, doubled %d, reordered %d, longest pause of answers %v, of deliveries %v",
		r.Traffic.Answered, r.Traffic.Receipts, r.Faults.Lost, r.Faults.Doubled, r.Faults.Reordered,
		longest.answers.Round(10*time.Millisecond), longest.deliveries.Round(10*time.Millisecond))
	if err := r.Err(); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(r.Details, "\n"))
	}
	return r
}

// pauses measures how long nothing was answered, or delivered, at all.
type pauses struct {
	stop chan struct{}
	done chan longest
}

type longest struct{ answers, deliveries time.Duration }

func watchPauses(l *judge.Load) *pauses {
	p := &pauses{make(chan struct{}), make(chan longest, 1)}
	go func() {
		var most longest
		type mark struct {
			n  int64
			at time.Time
		}
		answers, deliveries := mark{0, time.Now()}, mark{0, time.Now()}
		look := func(m *mark, now int64, most *time.Duration) {
			if m.n > 0 || now == 0 {
				*most = max(*most, time.Since(m.at))
			}
			if now > m.n {
				*m = mark{now, time.Now()}
			}
		}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				look(&answers, l.Answered(), &most.answers)
				look(&deliveries, l.Received(), &most.deliveries)
			case <-p.stop:
				p.done <- most
				return
			}
		}
	}()
	return p
}

func (p *pauses) end() longest {
	close(p.stop)
	return <-p.done
}

// rounds is how often something is done, more often in a soak.
func rounds(t *testing.T, few int) func() bool {
	soak, stop := context.WithTimeout(t.Context(), soakTime(t))
	t.Cleanup(stop)
	done := 0
	return func() bool {
		done++
		return done <= few || soak.Err() == nil
	}
}

// A node is killed at any moment under load, and started again.
func TestClusterKill(t *testing.T) {
	n := startNodes(t, kafka.Options{})
	l := n.judge(n.plan())
	for more := rounds(t, 5); more(); {
		l.goesOn(time.Duration(rand.Int64N(int64(2 * time.Second))))
		b := n.brokers[rand.IntN(len(n.brokers))]
		b.kill()
		l.goesOn(0) // the others do
		b.launch()
		n.ready(b)
	}
	if r := l.verdict(); r.Traffic.Repeats == 0 {
		t.Error("no kill hit a publisher")
	}
}

// Members of consumers are on all nodes, and a node is killed at any moment: every
// message ends as acknowledged or as a dead letter, and nothing confirmed is undone.
func TestClusterConsumers(t *testing.T) {
	n := startNodes(t, kafka.Options{}, consumersAllowed...)
	plan := n.plan()
	plan.Tuning.Nodes = true
	plan.Publishers, plan.Subscribers, plan.Topics, plan.Keys, plan.Rate = 3, 1, 8, 150, 120 // each message makes several records in the control topic
	plan.Consumers = []judge.Consumer{
		{Name: "shared", Members: 4, Fetchers: 2},
		{Name: "unordered", Members: 3, Fetchers: 1, Unordered: true},
		{Name: "exclusive", Members: 3, Exclusive: true},
	}
	plan.Tuning.LeaveEvery = 2 * time.Second
	l := n.judge(plan)
	for more := rounds(t, 3); more(); {
		l.goesOn(time.Duration(rand.Int64N(int64(3 * time.Second))))
		b := n.brokers[rand.IntN(len(n.brokers))]
		l.Crash(b.kill)
		l.goesOn(2 * time.Second)
		b.launch()
		n.ready(b)
	}
	r := l.verdict()
	t.Logf("%+v", r.Work)
}

// A node is frozen under load for longer than others wait for it, and wakes.
func TestClusterStop(t *testing.T) {
	n := startNodes(t, kafka.Options{})
	l := n.judge(n.plan())
	for more := rounds(t, 2); more(); {
		l.goesOn(time.Second)
		b := n.brokers[rand.IntN(len(n.brokers))]
		if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		frozen := time.Now()
		within(t, time.Minute, "the others take it for dead", func() bool { return time.Since(frozen) > 6*time.Second })
		if err := b.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		n.ready(b)
	}
	l.verdict()
}

// All of Kafka is away for 20 s. Nobody is thought dead, subscribers stay, and
// everything goes on by itself.
func TestClusterWithoutKafka(t *testing.T) {
	n := startNodes(t, kafka.Options{})
	l := n.judge(n.plan())
	l.goesOn(time.Second)
	n.kafka.Node(1).Kill()
	away := time.Now()
	within(t, time.Minute, "it is away for a while", func() bool { return time.Since(away) > 20*time.Second })
	for _, b := range n.brokers {
		if code := status("http://" + b.admin + "/healthz"); code != 200 {
			t.Errorf("/healthz says %d without Kafka", code)
		}
	}
	if err := n.kafka.Node(1).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.goesOn(time.Second)
	n.ready(n.brokers...)
	l.verdict()
	for _, b := range n.brokers {
		if strings.Contains(b.stderr.String(), "took it for dead") {
			t.Error("a node was thought dead while Kafka was away")
		}
	}
}

// The node of Kafka that leads is killed, of three, and comes back.
func TestClusterKafkaLeader(t *testing.T) {
	n := startNodes(t, kafka.Options{Nodes: 3})
	l := n.judge(n.plan())
	for more := rounds(t, 2); more(); {
		l.goesOn(time.Second)
		leader := n.leader("tidewire.main")
		leader.Kill()
		l.goesOn(time.Second)
		if err := leader.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.verdict()
}

// leader is the node of Kafka that leads the first partition of a topic.
func (n *nodes) leader(topic string) *kafka.Node {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	leader, err := n.kafka.Leader(ctx, topic, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	return leader
}
