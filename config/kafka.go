package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

const (
	maxKafkaBrokers  = 100
	maxPartitions    = 256
	maxReplication   = 10
	maxKafkaName     = 100 // a name in Kafka has at most 249 bytes
	defaultPrefix    = "tidewire"
	defaultPartition = 4
)

// Kafka makes the broker one node of a cluster: its streams are topics in Kafka,
// which all nodes share. Without brokers there is no cluster, and everything is
// on this machine.
type Kafka struct {
	Brokers     []string  `yaml:"brokers"`     // some of Kafka's brokers, host:port; the others are found
	Prefix      string    `yaml:"prefix"`      // of the names of the topics in Kafka: prefix.main, prefix.control
	Node        string    `yaml:"node"`        // name of this node for people; empty for the name of the host
	Replication int       `yaml:"replication"` // copies of what `tidewire kafka init` creates
	TLS         KafkaTLS  `yaml:"tls"`
	SASL        KafkaSASL `yaml:"sasl"`

	In  []ConnectorIn  `yaml:"in"`  // topics of Kafka whose records become messages
	Out []ConnectorOut `yaml:"out"` // topics of Kafka that get messages
}

// Configured reports whether the broker is a node of a cluster.
func (k *Kafka) Configured() bool { return len(k.Brokers) > 0 }

// KafkaTLS says how connections to Kafka are protected.
type KafkaTLS struct {
	Enabled    bool   `yaml:"enabled"`
	CAFile     string `yaml:"ca_file"`     // certificates that are trusted, PEM; empty for those of the system
	CertFile   string `yaml:"cert_file"`   // certificate of this node, where Kafka asks for one
	KeyFile    string `yaml:"key_file"`    // its key
	ServerName string `yaml:"server_name"` // that Kafka's certificates must have, where it is not the host's
}

// KafkaSASL says who the broker is to Kafka.
type KafkaSASL struct {
	Mechanism    string `yaml:"mechanism"` // plain, scram-sha-256, scram-sha-512; empty for none
	User         string `yaml:"user"`
	Password     Secret `yaml:"password"`
	PasswordFile string `yaml:"password_file"` // holds the password; one line end behind it is dropped
}

// The mechanisms of SASL.
const (
	SASLPlain       = "plain"
	SASLScramSHA256 = "scram-sha-256"
	SASLScramSHA512 = "scram-sha-512"
)

func defaultKafka() Kafka { return Kafka{Prefix: defaultPrefix, Replication: 3} }

func (c *Config) checkKafka() error {
	k := &c.Kafka
	if !k.Configured() {
		return c.checkNoKafka()
	}
	if len(k.Brokers) > maxKafkaBrokers {
		return fmt.Errorf("kafka.brokers has %d addresses; some are enough, the others are found: write at most %d", len(k.Brokers), maxKafkaBrokers)
	}
	for i, address := range k.Brokers {
		host, port, err := net.SplitHostPort(address)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" || strings.ContainsAny(host, " /") {
			return fmt.Errorf("kafka.brokers[%d]: %q is not an address; write host:port, such as kafka-1:9092", i, address)
		}
	}
	if err := checkKafkaName("kafka.prefix", k.Prefix); err != nil {
		return err
	}
	if k.Node != "" {
		if err := checkKafkaName("kafka.node", k.Node); err != nil {
			return err
		}
	}
	if k.Replication < 1 || k.Replication > maxReplication {
		return fmt.Errorf("kafka.replication is %d; write the number of copies from 1 to %d, 3 is usual", k.Replication, maxReplication)
	}
	if err := k.TLS.check(); err != nil {
		return err
	}
	if err := k.SASL.check(); err != nil {
		return err
	}
	if err := c.checkClusterStreams(); err != nil {
		return err
	}
	return c.checkConnectors()
}

// checkNoKafka refuses what means nothing without Kafka.
func (c *Config) checkNoKafka() error {
	d := defaultKafka()
	if c.Kafka.TLS != d.TLS || c.Kafka.SASL != d.SASL || c.Kafka.Prefix != d.Prefix || c.Kafka.Node != d.Node ||
		len(c.Kafka.In)+len(c.Kafka.Out) > 0 {
		return fmt.Errorf("kafka has settings, but no brokers; write their addresses, such as brokers: [kafka-1:9092], or remove kafka")
	}
	for i := range c.Streams.Others {
		if c.Streams.Others[i].Local {
			return fmt.Errorf("streams.others[%d].local: without kafka.brokers every stream is on this machine alone; remove it", i)
		}
	}
	return nil
}

// checkClusterStreams refuses streams that only this node would have, unless that
// is wanted.
func (c *Config) checkClusterStreams() error {
	type stream struct {
		at string
		*Stream
	}
	all := []stream{{"streams.main", &c.Streams.Main}, {"streams.dead", &c.Streams.Dead}}
	for i := range c.Streams.Others {
		s := &c.Streams.Others[i]
		at := fmt.Sprintf("streams.others[%d]", i)
		if s.Storage == StorageMemory && !s.Local {
			return fmt.Errorf("%s (%s) is in memory, so each node of the cluster would have other messages; write local: true if that is wanted, or leave storage out", at, s.Name)
		}
		if !s.Local {
			all = append(all, stream{at, &s.Stream})
		}
	}
	for _, s := range all {
		if s.Partitions < 1 || s.Partitions > maxPartitions {
			return fmt.Errorf("%s.partitions is %d; write a number from 1 to %d", s.at, s.Partitions, maxPartitions)
		}
	}
	return nil
}

const kafkaLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

func checkKafkaName(at, name string) error {
	if name == "" || len(name) > maxKafkaName || strings.Trim(name, kafkaLetters) != "" || strings.Trim(name, ".") == "" {
		return fmt.Errorf("%s: %.120q is not a name that Kafka knows; write at most %d of letters, digits, '-', '_' and '.'", at, name, maxKafkaName)
	}
	return nil
}

func (t *KafkaTLS) check() error {
	if !t.Enabled && *t != (KafkaTLS{}) {
		return fmt.Errorf("kafka.tls has settings, but is not enabled; write enabled: true, or remove them")
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return fmt.Errorf("kafka.tls.cert_file and kafka.tls.key_file belong together; set both or none")
	}
	return nil
}

func (s *KafkaSASL) check() error {
	if s.Mechanism == "" {
		if *s != (KafkaSASL{}) {
			return fmt.Errorf("kafka.sasl has no mechanism; write %s, %s or %s", SASLScramSHA512, SASLScramSHA256, SASLPlain)
		}
		return nil
	}
	if err := oneOf("kafka.sasl.mechanism", s.Mechanism, SASLPlain, SASLScramSHA256, SASLScramSHA512); err != nil {
		return err
	}
	if s.User == "" || s.Password == "" {
		return fmt.Errorf("kafka.sasl needs user, and password or password_file; set them, or remove mechanism")
	}
	return nil
}
