// Command cluster shows Tidewire on many nodes, on one machine: real Kafka, some
// brokers and a small proxy before them, as plain processes. Ctrl-C ends them all.
//
//	go run ./tests/cluster [-brokers 3] [-kafka 1] [-dir DIR]
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
	flag.StringVar(&o.dir, "dir", "", "where all data is kept (default: nowhere, it is removed at the end)")
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
	dir, own, err := directory(o.dir)
	if err != nil {
		return err
	}
	if own {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	front, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(o.port)))
	if err != nil {
		return fmt.Errorf("port %d is in use: end the broker that has it, or choose another with -port", o.port)
	}
	defer func() { _ = front.Close() }()

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

	c := &cluster{dir: dir, program: program, kafka: k.Addresses(kafka.Plain)}
	for i := range o.brokers {
		c.brokers = append(c.brokers, c.broker(i, o))
	}
	return c.run(ctx, front)
}

// directory returns where everything lies, and whether it is to be removed.
func directory(given string) (dir string, own bool, err error) {
	if given != "" {
		dir, err = filepath.Abs(given)
		return dir, false, errors.Join(err, os.MkdirAll(given, 0o755))
	}
	dir, err = os.MkdirTemp("", "tidewire-cluster-")
	return dir, true, err
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
	kafka   []string
	brokers []*broker
}

// broker is one of them: a process, and how to start it again.
type broker struct {
	name, listen, admin string
	config              string // file
	log                 string // file
}

// broker lays out the broker of an index. Its ports follow the proxy's.
func (c *cluster) broker(i int, o options) *broker {
	name := string(rune('a' + i%26))
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port)) }
	return &broker{
		name: name, listen: at(o.port + 1 + i), admin: at(o.port + 101 + i),
		config: filepath.Join(c.dir, name+".yaml"), log: filepath.Join(c.dir, name+".log"),
	}
}

// write writes the configuration of a broker.
func (c *cluster) write(b *broker) error {
	text := fmt.Sprintf("listen: %s\nadmin: %s\ndata: %s\nallowed_origins: [\"*\"]\nkafka:\n  brokers: [%s]\n  node: %s\n  replication: %d\n",
		b.listen, b.admin, filepath.Join(c.dir, "data-"+b.name), strings.Join(c.kafka, ", "), b.name, len(c.kafka))
	return os.WriteFile(b.config, []byte(text), 0o644)
}

// run initializes the cluster, starts the brokers and serves until ctx ends.
func (c *cluster) run(ctx context.Context, front net.Listener) error {
	for _, b := range c.brokers {
		if err := c.write(b); err != nil {
			return err
		}
	}
	say("tidewire kafka init --config %s", c.brokers[0].config)
	initialize := exec.CommandContext(ctx, c.program, "kafka", "init", "--config", c.brokers[0].config)
	initialize.Stdout, initialize.Stderr = os.Stdout, os.Stderr
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
	c.announce(front)
	p.run(ctx, front)
	return nil
}

// start starts a broker. It has a process group of its own, so that Ctrl-C
// reaches it by this command alone.
func (c *cluster) start(b *broker) (*exec.Cmd, error) {
	log, err := os.Create(b.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	process := exec.Command(c.program, "serve", "--config", b.config)
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("start broker %s: %w", b.name, err)
	}
	say("broker %s  http://%s  admin http://%s  pid %d", b.name, b.listen, b.admin, process.Process.Pid)
	return process, nil
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
	if ctx.Err() != nil {
		return
	}
	say("broker %s has ended (%v); its log is %s, and this starts it again:\n  %s serve --config %s", b.name, err, b.log, c.program, b.config)
}

func (c *cluster) announce(front net.Listener) {
	say("Kafka     %s", strings.Join(c.kafka, ","))
	say("proxy     http://%s: each connection goes to the next broker that is ready", front.Addr())
	say("")
	say("  %s sub 'room.>' --server http://%s", c.program, front.Addr())
	say("  curl -d hello http://%s/v1/topics/room.1/messages", c.brokers[0].listen)
	say("")
	say("Ctrl-C ends everything.")
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
