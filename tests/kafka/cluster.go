package kafka

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Options of a cluster; the zero value is one node.
type Options struct {
	Nodes int    // 1 if it is 0; 3 is what can lose one
	Dir   string // data and logs; one that was used before goes on. "": a temporary one, removed at the end
	Port  int    // of the first node, the others follow; 0: ports that are free
	SASL  bool   // listeners with SASL, see User
	TLS   bool   // listeners with TLS, see TLSConfig; with SASL besides, one that has both

	Properties map[string]string // of the server, above ours
}

// Cluster is a set of nodes, of which some may be dead at times.
type Cluster struct {
	dist      *Distribution
	options   Options
	layout    *layout
	nodes     []*Node
	javaFlags []string
	guard     *guard
	own       bool        // the directory is ours to remove
	tls       *tls.Config // nil without TLS
}

// Start starts a cluster and returns when topics can be made and written to.
// Whoever starts one closes it.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	d, err := Find(ctx)
	if err != nil {
		return nil, err
	}
	return d.start(ctx, o)
}

const (
	startAttempts = 3           // between finding a port and using it another program can take it
	startLimit    = time.Minute // of one attempt; 3 s is usual
)

func (d *Distribution) start(ctx context.Context, o Options, javaFlags ...string) (*Cluster, error) {
	var failed error
	for range startAttempts {
		c, err := d.newCluster(o, javaFlags)
		if err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(ctx, startLimit)
		err = c.Restart(limited)
		cancel()
		if err == nil {
			return c, nil
		}
		failed = fmt.Errorf("start Kafka: %w\n%s", err, c.Log())
		taken := strings.Contains(failed.Error(), "Address already in use")
		_ = c.Close() // the first error is the better one
		if !taken || o.Port != 0 {
			break
		}
	}
	return nil, failed
}

// newCluster lays out the directory of a cluster, of which no node runs yet.
func (d *Distribution) newCluster(o Options, javaFlags []string) (*Cluster, error) {
	o.Nodes = max(o.Nodes, 1)
	c := &Cluster{dist: d, options: o, javaFlags: javaFlags, own: o.Dir == ""}
	if c.own {
		dir, err := os.MkdirTemp("", "tidewire-kafka-")
		if err != nil {
			return nil, err
		}
		o.Dir = dir
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	guarded := ""
	if c.own {
		guarded = dir
	}
	if c.guard, err = newGuard(guarded); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.layout = &layout{dir: dir, extra: o.Properties}
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) prepare() error {
	if err := os.MkdirAll(c.layout.dir, 0o755); err != nil {
		return err
	}
	if err := c.choosePorts(); err != nil {
		return err
	}
	if c.options.TLS {
		config, err := c.certify()
		if err != nil {
			return fmt.Errorf("make the certificate of Kafka: %w", err)
		}
		c.tls = config
	}
	clusterID, err := c.clusterID()
	if err != nil {
		return err
	}
	for i := range c.options.Nodes {
		n := &Node{cluster: c, id: i + 1}
		if err := n.prepare(clusterID); err != nil {
			return fmt.Errorf("lay out node %d of Kafka: %w", n.id, err)
		}
		c.nodes = append(c.nodes, n)
	}
	return nil
}

// choosePorts chooses those of all nodes, and of no more listeners than wanted.
func (c *Cluster) choosePorts() error {
	o, taken := c.options, map[int]bool{}
	for i := range o.Nodes {
		if o.Port != 0 {
			taken[o.Port+i] = true
			if !free(o.Port + i) {
				return fmt.Errorf("port %d is in use; end the program that has it, or choose another port", o.Port+i)
			}
		}
	}
	for i := range o.Nodes {
		p := ports{client: o.Port + i}
		wanted := map[*int]bool{&p.controller: true, &p.client: o.Port == 0, &p.sasl: o.SASL, &p.tls: o.TLS, &p.saslTLS: o.SASL && o.TLS}
		for port, want := range wanted {
			if !want {
				continue
			}
			var err error
			if *port, err = freePort(taken); err != nil {
				return err
			}
		}
		c.layout.nodes = append(c.layout.nodes, p)
	}
	return nil
}

// clusterID is kept in the directory.
func (c *Cluster) clusterID() (string, error) {
	file := filepath.Join(c.layout.dir, "cluster.id")
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		text = []byte(randomID())
		err = os.WriteFile(file, text, 0o644)
	}
	return string(bytes.TrimSpace(text)), err
}

// Node returns one by its number, from 1 on.
func (c *Cluster) Node(id int) *Node { return c.nodes[id-1] }

// Nodes returns all, in the order of their numbers.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Addresses are those of a listener on all nodes; none if it was not asked for.
func (c *Cluster) Addresses(l Listener) []string {
	var all []string
	for _, p := range c.layout.nodes {
		if port := p.of(l); port != 0 {
			all = append(all, address(port))
		}
	}
	return all
}

// TLSConfig is how a client trusts the cluster; nil without TLS.
func (c *Cluster) TLSConfig() *tls.Config { return c.tls.Clone() }

// CertificateFile is a PEM file with the authority that signed the cluster's
// certificate. It is there if the cluster has TLS.
func (c *Cluster) CertificateFile() string { return c.layout.certificateFile() }

// Dir is where everything of the cluster lies.
func (c *Cluster) Dir() string { return c.layout.dir }

// Restart ends the nodes as kill -9 does, as far as they run, starts all and
// returns when topics can be made and written to.
func (c *Cluster) Restart(ctx context.Context) error {
	for _, n := range c.nodes {
		n.Kill()
	}
	for _, n := range c.nodes {
		if err := n.Launch(); err != nil {
			return err
		}
	}
	return c.Ready(ctx)
}

// Terminate lets all nodes say goodbye, and returns when they are gone. The data
// stays for Restart, or for another cluster in the same directory.
func (c *Cluster) Terminate() {
	var all sync.WaitGroup
	for _, n := range c.nodes {
		all.Go(n.Terminate)
	}
	all.Wait()
}

// Ready returns when all nodes follow their partitions, and topics can be made
// and written to.
func (c *Cluster) Ready(ctx context.Context) error {
	if err := c.await(ctx, c.nodes...); err != nil {
		return err
	}
	if c.options.SASL {
		if err := c.addUser(ctx); err != nil {
			return err
		}
	}
	return c.probe(ctx)
}

// Guard makes another process end with the nodes if this one dies, however that
// happens; Unguard forgets it again.
func (c *Cluster) Guard(pid int) { c.guard.add(pid) }

// Unguard is the opposite of Guard.
func (c *Cluster) Unguard(pid int) { c.guard.remove(pid) }

// Log is the end of what each node has written.
func (c *Cluster) Log() string {
	var text strings.Builder
	for _, n := range c.nodes {
		fmt.Fprintf(&text, "== Kafka node %d\n%s\n", n.id, n.Log())
	}
	return text.String()
}

// Close ends the nodes as kill -9 does, and removes the directory if it is
// temporary.
func (c *Cluster) Close() error {
	for _, n := range c.nodes {
		n.Kill()
	}
	if c.guard != nil {
		c.guard.close()
	}
	if !c.own || c.layout == nil {
		return nil
	}
	return os.RemoveAll(c.layout.dir)
}

func (c *Cluster) certify() (*tls.Config, error) {
	if text, err := os.ReadFile(c.layout.certificateFile()); err == nil {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", c.layout.certificateFile())
		}
		return &tls.Config{RootCAs: roots}, nil
	}
	if err := writeCertificates(c.layout.certificateFile(), c.layout.keyStore()); err != nil {
		return nil, err
	}
	return c.certify()
}
