package kafka

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Listener is one of the doors of a node.
type Listener string

// The listeners. The first is always there, the others by the options.
const (
	Plain   Listener = "PLAINTEXT" // neither encrypted nor guarded
	SASL    Listener = "SASL"      // a user and a password, not encrypted
	TLS     Listener = "TLS"       // encrypted, for everybody
	SASLTLS Listener = "SASLTLS"   // both
)

// The user that the listeners with SASL know, by PLAIN, SCRAM-SHA-256 and
// SCRAM-SHA-512.
const (
	User     = "tidewire"
	Password = "wire of the tide"
)

// ports are those of one node.
type ports struct{ client, controller, sasl, tls, saslTLS int }

// of returns the port of a listener, 0 if it has none.
func (p ports) of(l Listener) int {
	return map[Listener]int{Plain: p.client, SASL: p.sasl, TLS: p.tls, SASLTLS: p.saslTLS}[l]
}

// layout is what stays over the lives of the nodes.
type layout struct {
	nodes []ports // of node 1, 2, ...
	dir   string
	extra map[string]string
}

func (l *layout) nodeDir(id int) string   { return filepath.Join(l.dir, fmt.Sprintf("node-%d", id)) }
func (l *layout) keyStore() string        { return filepath.Join(l.dir, "server.pem") }
func (l *layout) certificateFile() string { return filepath.Join(l.dir, "ca.pem") }
func address(port int) string             { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// properties are the settings of a node: those of a small machine, those that
// make tests quick, and broker.session.timeout.ms, which bounds how long a
// partition stands still when its leader dies.
func (l *layout) properties(id int) properties {
	p := l.nodes[id-1]
	var voters []string
	for i, n := range l.nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, address(n.controller)))
	}
	replicas, minInSync := strconv.Itoa(min(len(l.nodes), 3)), "1"
	if len(l.nodes) > 2 {
		minInSync = "2"
	}
	props := properties{
		"process.roles":            "broker,controller",
		"node.id":                  strconv.Itoa(id),
		"controller.quorum.voters": strings.Join(voters, ","),
		"log.dirs":                 filepath.Join(l.nodeDir(id), "data"),

		"controller.listener.names":  "CONTROLLER",
		"inter.broker.listener.name": string(Plain),

		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",
		"auto.create.topics.enable":    "false",

		"default.replication.factor":                       replicas,
		"min.insync.replicas":                              minInSync,
		"offsets.topic.num.partitions":                     "2",
		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.num.partitions":             "2",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    minInSync,
		"share.coordinator.state.topic.num.partitions":     "2",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            minInSync,
		"group.initial.rebalance.delay.ms":                 "0",

		"num.network.threads":            "2",
		"num.io.threads":                 "4",
		"log.cleaner.dedupe.buffer.size": "16777216",
		// What is past its retention goes while the test looks.
		"log.initial.task.delay.ms":       "500",
		"log.retention.check.interval.ms": "1000",
		"log.segment.delete.delay.ms":     "1000",
	}
	l.listeners(p, props)
	maps.Copy(props, l.extra)
	return props
}

// listeners sets the doors of a node.
func (l *layout) listeners(p ports, props properties) {
	protocols := map[Listener]string{Plain: "PLAINTEXT", SASL: "SASL_PLAINTEXT", TLS: "SSL", SASLTLS: "SASL_SSL"}
	var open, advertised []string
	for _, listener := range slices.Sorted(maps.Keys(protocols)) {
		port := p.of(listener)
		if port == 0 {
			continue
		}
		advertised = append(advertised, fmt.Sprintf("%s://%s", listener, address(port)))
		prefix := "listener.name." + strings.ToLower(string(listener)) + "."
		if listener == SASL || listener == SASLTLS {
			const module = "org.apache.kafka.common.security."
			props[prefix+"sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
			props[prefix+"plain.sasl.jaas.config"] = fmt.Sprintf("%splain.PlainLoginModule required user_%s=%q;", module, User, Password)
			props[prefix+"scram-sha-256.sasl.jaas.config"] = module + "scram.ScramLoginModule required;"
			props[prefix+"scram-sha-512.sasl.jaas.config"] = module + "scram.ScramLoginModule required;"
		}
		if listener == TLS || listener == SASLTLS {
			props[prefix+"ssl.keystore.type"] = "PEM"
			props[prefix+"ssl.keystore.location"] = l.keyStore()
		}
	}
	open = append(slices.Clone(advertised), "CONTROLLER://"+address(p.controller))
	mapped := []string{"CONTROLLER:PLAINTEXT"}
	for listener, protocol := range protocols {
		mapped = append(mapped, fmt.Sprintf("%s:%s", listener, protocol))
	}
	slices.Sort(mapped)
	props["listeners"] = strings.Join(open, ",")
	props["advertised.listeners"] = strings.Join(advertised, ",")
	props["listener.security.protocol.map"] = strings.Join(mapped, ",")
}

// properties are the settings of a Java program.
type properties map[string]string

func (p properties) write(file string) error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&text, "%s=%s\n", name, strings.ReplaceAll(p[name], `\`, `\\`))
	}
	return os.WriteFile(file, []byte(text.String()), 0o600)
}

// randomID is one as Kafka writes those of clusters and directories.
func randomID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	id[0] &= 0x3f        // Kafka wants none that begins with a dash
	return base64.RawURLEncoding.EncodeToString(id)
}

// freePort finds a port that stays free while a node is dead: below the range
// from which outgoing connections take theirs.
func freePort(taken map[int]bool) (int, error) {
	for range 1000 {
		n, err := rand.Int(rand.Reader, big.NewInt(18000))
		if err != nil {
			return 0, err
		}
		port := 12000 + int(n.Int64())
		if taken[port] || !free(port) {
			continue
		}
		taken[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no port between 12000 and 30000 is free")
}

func free(port int) bool {
	listener, err := net.Listen("tcp", address(port))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}
