package kafkatest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/tidewire/tidewire/tests/kafka"
	"github.com/tidewire/tidewire/tests/kafka/kafkatest"
)

const (
	limit = time.Minute
	topic = "orders"
)

// envChild tells a copy of this program to start a node and to wait for its death;
// it names the directory, or says temporary.
const envChild = "TIDEWIRE_KAFKA_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const temporary = "temporary"

func child(dir string) error {
	if dir == temporary {
		dir = ""
	}
	c, err := kafka.Start(context.Background(), kafka.Options{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println(c.Node(1).Address(), c.Dir())
	_, err = io.Copy(io.Discard, os.Stdin) // until it is killed
	return err
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// produce tries until the record is on a majority of the nodes.
func produce(t *testing.T, c *kafka.Cluster, value string) {
	t.Helper()
	client, done := c.Client()
	defer done()
	ctx := within(t)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := client.Produce(ctx, &kafkago.ProduceRequest{
			Topic: topic, RequiredAcks: kafkago.RequireAll,
			Records: kafkago.NewRecordReader(kafkago.Record{Value: kafkago.NewBytes([]byte(value))}),
		})
		if err == nil && resp.Error == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("produce: %v, %+v", err, resp)
		case <-tick.C:
		}
	}
}

// values reads the first partition of a topic up to its end. What came twice in a
// row counts once: produce repeats what was not answered, and that may be there.
func values(t *testing.T, c *kafka.Cluster) []string {
	t.Helper()
	ctx := within(t)
	ends, err := c.EndOffsets(ctx, topic)
	must(t, err)
	client, done := c.Client()
	defer done()
	var all []string
	for offset := int64(0); offset < ends[0]; {
		resp, err := client.Fetch(ctx, &kafkago.FetchRequest{Topic: topic, Offset: offset, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
		must(t, err)
		must(t, resp.Error)
		for {
			record, err := resp.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			value, err := io.ReadAll(record.Value)
			must(t, err)
			all, offset = append(all, string(value)), record.Offset+1
		}
	}
	return slices.Compact(all)
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the topic holds %q, want %q", got, want)
	}
}

// TestOneNode: what was answered outlives kill -9, and a node that was stopped
// goes on.
func TestOneNode(t *testing.T) {
	t.Parallel()
	c := kafkatest.Start(t, kafka.Options{})
	ctx := within(t)
	must(t, c.CreateTopic(ctx, topic, kafka.Topic{Partitions: 2, Config: map[string]string{"retention.ms": "-1"}}))
	produce(t, c, "before")

	must(t, c.Node(1).Restart(ctx))
	equal(t, values(t, c), []string{"before"})

	c.Node(1).Stop()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := c.EndOffsets(short, topic); err == nil {
		t.Error("a stopped node answered")
	}
	c.Node(1).Continue()
	produce(t, c, "after")
	equal(t, values(t, c), []string{"before", "after"})

	must(t, c.DeleteTopic(ctx, topic))
	must(t, c.CreateTopic(ctx, topic, kafka.Topic{}))
	equal(t, values(t, c), nil)
}

// TestThreeNodes: without the leader of a partition the others go on, and the one
// that comes back follows.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	c := kafkatest.Start(t, kafka.Options{Nodes: 3})
	ctx := within(t)
	must(t, c.CreateTopic(ctx, topic, kafka.Topic{}))
	produce(t, c, "before")

	leader, err := c.Leader(ctx, topic, 0)
	must(t, err)
	leader.Kill()
	produce(t, c, "after")
	next, err := c.Leader(ctx, topic, 0)
	must(t, err)
	if next == leader {
		t.Errorf("node %d is dead and leads", leader.ID())
	}
	must(t, leader.Restart(ctx))
	next.Kill() // and what it followed is whole
	produce(t, c, "last")
	equal(t, values(t, c), []string{"before", "after", "last"})
}

// TestListeners: each way in takes its user, and refuses others.
func TestListeners(t *testing.T) {
	t.Parallel()
	c := kafkatest.Start(t, kafka.Options{SASL: true, TLS: true})
	mechanism := func(algorithm scram.Algorithm, password string) sasl.Mechanism {
		m, err := scram.Mechanism(algorithm, kafka.User, password)
		must(t, err)
		return m
	}
	for _, test := range []struct {
		name     string
		listener kafka.Listener
		sasl     sasl.Mechanism
		tls      *tls.Config
		refused  bool
	}{
		{"plain", kafka.Plain, nil, nil, false},
		{"PLAIN", kafka.SASL, plain.Mechanism{Username: kafka.User, Password: kafka.Password}, nil, false},
		{"PLAIN, wrong password", kafka.SASL, plain.Mechanism{Username: kafka.User, Password: "wrong"}, nil, true},
		{"SCRAM-SHA-256", kafka.SASL, mechanism(scram.SHA256, kafka.Password), nil, false},
		{"SCRAM-SHA-512", kafka.SASL, mechanism(scram.SHA512, kafka.Password), nil, false},
		{"SCRAM-SHA-512, wrong password", kafka.SASL, mechanism(scram.SHA512, "wrong"), nil, true},
		{"no user", kafka.SASL, nil, nil, true},
		{"TLS", kafka.TLS, nil, c.TLSConfig(), false},
		{"TLS, unknown authority", kafka.TLS, nil, &tls.Config{}, true},
		{"TLS and SCRAM", kafka.SASLTLS, mechanism(scram.SHA256, kafka.Password), c.TLSConfig(), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			transport := &kafkago.Transport{SASL: test.sasl, TLS: test.tls}
			defer transport.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(within(t), 2*time.Second)
			defer cancel()
			client := &kafkago.Client{Addr: kafkago.TCP(c.Addresses(test.listener)...), Transport: transport}
			_, err := client.Metadata(ctx, &kafkago.MetadataRequest{})
			if refused := err != nil; refused != test.refused {
				t.Errorf("refused is %t: %v", refused, err)
			}
		})
	}
}

// TestNothingOutlivesTheProcess: kill -9 of whoever started a cluster leaves no
// node, and no data in a temporary directory.
func TestNothingOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	kafkatest.Need(t)
	t.Run("temporary directory", func(t *testing.T) {
		t.Parallel()
		orphaned(t, temporary, func(statErr error) bool { return errors.Is(statErr, os.ErrNotExist) })
	})
	// A node ends by itself once its directory is gone, so that the first case
	// alone would not show that it is killed.
	t.Run("directory that stays", func(t *testing.T) {
		t.Parallel()
		orphaned(t, t.TempDir(), func(statErr error) bool { return statErr == nil })
	})
}

// orphaned kills a process that runs a node, and waits until the node is gone and
// its directory is as it should be.
func orphaned(t *testing.T, dir string, directory func(statErr error) bool) {
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(within(t), self)
	cmd.Env, cmd.Stderr = append(os.Environ(), envChild+"="+dir), os.Stderr
	_, err = cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	_ = cmd.Process.Kill() // an error means that it has ended
	_ = cmd.Wait()
	must(t, readErr)

	address, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
	ctx, tick := within(t), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		conn, dialErr := net.Dial("tcp", address)
		if dialErr == nil {
			_ = conn.Close()
		}
		_, statErr := os.Stat(dir)
		if dialErr != nil && directory(statErr) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("connect: %v, look for the data: %v", dialErr, statErr)
		case <-tick.C:
		}
	}
}
