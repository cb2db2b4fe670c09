// Command cluster shows Tidewire on many nodes, on one machine: real Kafka, some
// brokers and a small proxy before them, as plain processes. Ctrl-C ends them all.
//
//	go run ./tests/cluster [-brokers 3] [-kafka 1] [-dir DIR]
//
// Without -dir everything lies in bin/cluster, which each start empties.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/tidewire/tidewire/tests/kafka"
)

// options are what the command line says.
type options struct {
	brokers   int
	kafka     int
	dir       string
	port      int
	kafkaPort int
}

func main() {
	var o options
	flag.IntVar(&o.brokers, "brokers", 3, "how many brokers")
	flag.IntVar(&o.kafka, "kafka", 1, "how many nodes Kafka has; 3 can lose one")
	flag.StringVar(&o.dir, "dir", "", "where all data is kept, and found again (default: bin/cluster, which is emptied at the start)")
	flag.IntVar(&o.port, "port", 7070, "port of the proxy; the brokers' are the ones behind it, and 100 above")
	flag.IntVar(&o.kafkaPort, "kafka-port", 9092, "port of Kafka's first node")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.brokers < 1 || o.brokers > 26 {
		return fmt.Errorf("-brokers %d: write a number from 1 to 26", o.brokers)
	}
	front, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(o.port)))
	if err != nil {
		return fmt.Errorf("port %d is in use: end the broker that has it, or choose another with -port", o.port)
	}
	defer func() { _ = front.Close() }()
	dir, err := directory(o.dir) // after the port: another one may be at work in it
	if err != nil {
		return err
	}

	say("Building the broker ...")
	program := filepath.Join(dir, "tidewire")
	if err := build(ctx, program); err != nil {
		return err
	}
	say("Starting Kafka %s; the first time fetches it, 45 MB ...", kafka.Version)
	k, err := kafka.Start(ctx, kafka.Options{Nodes: o.kafka, Dir: filepath.Join(dir, "kafka"), Port: o.kafkaPort})
	if err != nil {
		return err
	}
	defer func() { _ = k.Close() }()

	if err := kafka.Console(ctx, dir); err != nil {
		return err
	}
	c := &cluster{dir: dir, program: program, kafka: k}
	for i := range o.brokers {
		c.brokers = append(c.brokers, c.broker(i, o))
	}
	return c.run(ctx, front)
}

// standard is where everything lies if nothing else is said.
const standard = "bin/cluster"

// directory returns where everything lies. Only the standard one is emptied.
func directory(given string) (string, error) {
	dir := given
	if given == "" {
		dir = standard
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

// build makes the broker from the source around this command.
func build(ctx context.Context, program string) error {
	c := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/tidewire/tidewire/cmd/tidewire")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("build the broker: %w", err)
	}
	return nil
}

// cluster is the brokers of one Kafka.
type cluster struct {
	dir     string
	program string
	kafka   *kafka.Cluster
	brokers []*broker
}

// broker is one of them: a process, and how to start it again.
type broker struct {
	name, listen, admin string
	file                string // its configuration, log and pid are this with .yaml, .log and .pid
}

// broker lays out the broker of an index. Its ports follow the proxy's.
func (c *cluster) broker(i int, o options) *broker {
	name := fmt.Sprintf("broker-%d", i+1)
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port)) }
	return &broker{
		name: name, listen: at(o.port + 1 + i), admin: at(o.port + 101 + i),
		file: filepath.Join(c.dir, name),
	}
}

// environment is that of this command without settings of brokers, which would
// count more than their files.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TIDEWIRE_") })
}

func (c *cluster) addresses() []string { return c.kafka.Addresses(kafka.Plain) }

// write writes the configuration of a broker.
func (c *cluster) write(b *broker) error {
	text := fmt.Sprintf("listen: %s\nadmin: %s\ndata: %s\nallowed_origins: [\"*\"]\nkafka:\n  brokers: [%s]\n  node: %s\n  replication: %d\n",
		b.listen, b.admin, filepath.Join(c.dir, "data-"+b.name), strings.Join(c.addresses(), ", "), b.name, len(c.addresses()))
	return os.WriteFile(b.file+".yaml", []byte(text), 0o644)
}

// run initializes the cluster, starts the brokers and serves until ctx ends.
func (c *cluster) run(ctx context.Context, front net.Listener) error {
	for _, b := range c.brokers {
		if err := c.write(b); err != nil {
			return err
		}
	}
	say("tidewire kafka init --config %s", c.brokers[0].file+".yaml")
	initialize := exec.CommandContext(ctx, c.program, "kafka", "init", "--config", c.brokers[0].file+".yaml")
	initialize.Stdout, initialize.Stderr, initialize.Env = os.Stdout, os.Stderr, environment()
	if err := initialize.Run(); err != nil {
		return fmt.Errorf("tidewire kafka init: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p := &proxy{}
	var all sync.WaitGroup
	defer all.Wait()
	for _, b := range c.brokers {
		p.backends = append(p.backends, &backend{name: b.name, address: b.listen})
		process, err := c.start(b)
		if err != nil {
			stop()
			return err
		}
		all.Go(func() { c.look(ctx, b, process) })
	}
	all.Go(func() {
		if p.ready(ctx) {
			c.announce(front)
		}
	})
	p.run(ctx, front)
	return nil
}

// start starts a broker. It has a process group of its own, so that Ctrl-C
// reaches it by this command alone.
func (c *cluster) start(b *broker) (*exec.Cmd, error) {
	log, err := os.Create(b.file + ".log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	process := exec.Command(c.program, "serve", "--config", b.file+".yaml")
	process.Stdout, process.Stderr, process.Env = log, log, environment()
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", b.name, err)
	}
	c.kafka.Guard(process.Process.Pid)
	say("%s  http://%s  admin http://%s  pid %d", b.name, b.listen, b.admin, process.Process.Pid)
	return process, os.WriteFile(b.file+".pid", fmt.Appendln(nil, process.Process.Pid), 0o644)
}

// look waits for a broker and says when it has ended; it ends it with the cluster.
func (c *cluster) look(ctx context.Context, b *broker, process *exec.Cmd) {
	ended := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
			_ = process.Process.Signal(syscall.SIGTERM)
		case <-ended:
		}
	}()
	err := process.Wait()
	close(ended)
	c.kafka.Unguard(process.Process.Pid)
	if ctx.Err() != nil {
		return
	}
	say("%s has ended (%v); its log is %s.log, and this starts it again:\n  %s serve --config %s.yaml", b.name, err, b.file, c.program, b.file)
}

// announce says how to see it work.
func (c *cluster) announce(front net.Listener) {
	topics := strings.Join(c.addresses(), ",")
	say("Kafka     %s", topics)
	say("proxy     http://%s: each connection goes to the next broker that is ready", front.Addr())
	say("")
	say("In another terminal, subscribe through the proxy, publish on one broker, and with Kafka's own console producer:")
	say("  %s sub 'room.>' --server http://%s", c.program, front.Addr())
	say("  curl -d hello http://%s/v1/topics/room.1/messages", c.brokers[0].listen)
	say("  printf 'room.1\\thello from Kafka\\n' | %s/kafka-console-producer.sh --bootstrap-server %s --topic tidewire.main --property parse.key=true", c.dir, topics)
	say("Kill a broker (kill -9, the pids are above) and see the subscriber go on at another one. What the cluster is:")
	say("  %s kafka status --config %s", c.program, c.brokers[0].file+".yaml")
	say("")
	say("Ctrl-C ends everything.")
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
