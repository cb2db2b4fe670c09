package config

import (
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// A Config is everything that can be set. Treat one that [Load] returned as
// read-only.
type Config struct {
	Data   string `yaml:"data"`   // directory of all that is stored
	Listen string `yaml:"listen"` // address of the public listener
	Admin  string `yaml:"admin"`  // address of the listener for metrics and operators
	Dev    bool   `yaml:"dev"`    // for development on this machine: local pages may connect

	AllowedOrigins []string `yaml:"allowed_origins"` // pages that may connect, such as https://app.example.com
	AllowedHosts   []string `yaml:"allowed_hosts"`   // values of the Host header that are served; empty for all

	Auth      Auth       `yaml:"auth"`
	Streams   Streams    `yaml:"streams"`
	Consumers []Consumer `yaml:"consumers"` // that are to be there; others may be too
	Kafka     Kafka      `yaml:"kafka"`
	Limits    Limits     `yaml:"limits"`
	Ping      Ping       `yaml:"ping"`
	Timeouts  Timeouts   `yaml:"timeouts"`
	Shutdown  Shutdown   `yaml:"shutdown"`
	Log       Log        `yaml:"log"`
}

// Auth says who may do what. Without keys and without a JWT secret everybody is
// anonymous.
type Auth struct {
	APIKeys []APIKey `yaml:"api_keys"`
	JWT     JWT      `yaml:"jwt"`
	Cookie  string   `yaml:"cookie"` // name of a cookie that carries a JWT; empty for none

	Anonymous Anonymous `yaml:"anonymous"`
}

// Configured reports whether there is any way to authenticate.
func (a *Auth) Configured() bool { return len(a.APIKeys) > 0 || a.JWT.Secret != "" }

// An APIKey lets a backend in. Key and SHA256 are two ways to write one secret.
type APIKey struct {
	Name   string `yaml:"name"`   // the subject of whoever uses it
	Key    Secret `yaml:"key"`    // begins with twk_
	SHA256 Secret `yaml:"sha256"` // of the key, in hex

	Permissions `yaml:",inline"`
}

// JWT says which tokens are valid: those signed with HS256 by the secret. What
// a token allows stands in its claims publish, subscribe and consume.
type JWT struct {
	Secret     Secret   `yaml:"secret"`
	SecretFile string   `yaml:"secret_file"` // holds the secret; one line end behind it is dropped
	Issuer     string   `yaml:"issuer"`      // the claim iss, if it must be there
	Audience   string   `yaml:"audience"`    // the claim aud, if it must be there
	Leeway     Duration `yaml:"leeway"`      // how far clocks may differ
}

// Permissions are lists of filters. {sub} in them stands for the subject: the
// name of the key.
type Permissions struct {
	Publish   []string `yaml:"publish"`
	Subscribe []string `yaml:"subscribe"`
	Consume   []string `yaml:"consume"`
}

// Anonymous lists the filters of what anybody may do: everything if there is no
// way to authenticate and nothing is said here, else what is said here.
type Anonymous struct {
	Publish   []string `yaml:"publish"`
	Subscribe []string `yaml:"subscribe"`
	Consume   []string `yaml:"consume"`
}

// Said reports whether something is said of anonymous clients, be it nothing at
// all in empty lists.
func (a Anonymous) Said() bool { return a.Publish != nil || a.Subscribe != nil || a.Consume != nil }

// Allows reports whether anonymous clients may do anything.
func (a Anonymous) Allows() bool { return len(a.Publish)+len(a.Subscribe)+len(a.Consume) > 0 }

// Streams are the logs that messages are kept in. The first of the others whose
// filters match a topic holds it; main holds the rest.
type Streams struct {
	Main   Stream        `yaml:"main"`
	Dead   Stream        `yaml:"dead"` // of the dead letters of all consumers
	Others []OtherStream `yaml:"others"`
}

// An OtherStream is a stream beside main.
type OtherStream struct {
	Name              string   `yaml:"name"`               // fixed: its data lies under it
	Filters           []string `yaml:"filters"`            // of the topics that it holds
	Storage           string   `yaml:"storage"`            // disk, memory
	RetentionMessages int      `yaml:"retention_messages"` // memory alone: the oldest go when there are more; 0 for no bound
	Local             bool     `yaml:"local"`              // in a cluster: this node alone has it

	Stream `yaml:",inline"`
}

// Where a stream is kept.
const (
	StorageDisk   = "disk"
	StorageMemory = "memory"
)

// A Stream says how long a log keeps what.
type Stream struct {
	RetentionAge   Duration `yaml:"retention_age"`          // messages older than this go; or forever
	RetentionBytes Size     `yaml:"retention_bytes"`        // the oldest go when there is more on the disk; or unlimited
	PerTopic       int      `yaml:"max_messages_per_topic"` // readers get the newest so many of each topic; 0 for all
	DedupeWindow   int      `yaml:"dedupe_window"`          // message ids that are remembered
	SegmentBytes   Size     `yaml:"segment_bytes"`          // retention removes whole files of about this size
	WindowBytes    Size     `yaml:"window_bytes"`           // newest messages kept in memory
	Partitions     int      `yaml:"partitions"`             // of its topic in Kafka; fixed when that is created
}

// Limits bound what clients can make large or many.
type Limits struct {
	PayloadBytes      Size `yaml:"payload_bytes"`       // of a message
	FrameBytes        Size `yaml:"frame_bytes"`         // of a WebSocket message; also memory that a client can claim with a few bytes
	PublishMessages   int  `yaml:"publish_messages"`    // in one frame or request
	HistoryMessages   int  `yaml:"history_messages"`    // in one answer
	InFlight          int  `yaml:"in_flight"`           // unanswered publishes of a connection
	Subscriptions     int  `yaml:"subscriptions"`       // of a connection
	Connections       int  `yaml:"connections"`         // in all, of every kind; lowered to what the open files allow
	OutboundSoftBytes Size `yaml:"outbound_soft_bytes"` // waiting for a connection: beyond, it reads the log at its own pace
	OutboundHardBytes Size `yaml:"outbound_hard_bytes"` // waiting for a connection: beyond, it is closed

	SubscriptionsTotal    int   `yaml:"subscriptions_total"`     // of all connections
	ReceivingBytes        Size  `yaml:"receiving_bytes"`         // frames and bodies that are arriving, in all
	ConnectionsPerAddress int   `yaml:"connections_per_address"` // from one IPv4 address or 64 bits of an IPv6 one; 0 for no limit
	Rates                 Rates `yaml:"rates"`
}

// Rates bound what clients do in a second. 0 is no limit.
type Rates struct {
	Connections  int  `yaml:"connections"`   // new ones
	Publish      int  `yaml:"publish"`       // messages of one subject, or of one connection without
	InboundBytes Size `yaml:"inbound_bytes"` // from one connection
	ReplayBytes  Size `yaml:"replay_bytes"`  // read from the log for one connection
}

// Ping says how dead clients are noticed.
type Ping struct {
	Interval Duration `yaml:"interval"`
	Timeout  Duration `yaml:"timeout"`
}

// Timeouts bound how long clients may take.
type Timeouts struct {
	Connect Duration `yaml:"connect"` // for the head of a request, and from the handshake to Connect
	Write   Duration `yaml:"write"`   // to take what is written to them
	Body    Duration `yaml:"body"`    // for the body of a request
}

// Shutdown says how a broker ends when it is asked to.
type Shutdown struct {
	Drain  Duration `yaml:"drain"`  // wait this long for connections to go
	Spread Duration `yaml:"spread"` // clients come back at random within this time
}

// Log says what is written to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// Default returns what holds where nothing is set.
func Default() *Config {
	return &Config{
		Data:    "./tidewire-data",
		Listen:  "127.0.0.1:7070",
		Admin:   "127.0.0.1:7071",
		Auth:    Auth{JWT: JWT{Leeway: Duration(5 * time.Second)}},
		Streams: Streams{Main: defaultStream(), Dead: deadStream()},
		Kafka:   defaultKafka(),
		Limits: Limits{
			PayloadBytes:       Size(protocol.LimitPayload.Default()),
			FrameBytes:         Size(protocol.LimitFrame.Default()),
			PublishMessages:    protocol.LimitMessages.Default(),
			HistoryMessages:    protocol.LimitHistory.Default(),
			InFlight:           protocol.LimitInFlight.Default(),
			Subscriptions:      protocol.LimitSubscriptions.Default(),
			Connections:        protocol.LimitConnections.Default(),
			OutboundSoftBytes:  Size(protocol.LimitOutboundSoft.Default()),
			SubscriptionsTotal: protocol.LimitAllSubs.Default(),
			ReceivingBytes:     Size(protocol.LimitReceiving.Default()),
			OutboundHardBytes:  Size(protocol.LimitOutboundHard.Default()),
		},
		Ping:     Ping{Interval: Duration(25 * time.Second), Timeout: Duration(protocol.LimitPing.DefaultTime())},
		Timeouts: Timeouts{Connect: Duration(protocol.LimitConnect.DefaultTime()), Write: Duration(protocol.LimitWrite.DefaultTime()), Body: Duration(protocol.LimitBody.DefaultTime())},
		Shutdown: Shutdown{Drain: Duration(10 * time.Second), Spread: Duration(5 * time.Second)},
		Log:      Log{Level: "info", Format: "text"},
	}
}
