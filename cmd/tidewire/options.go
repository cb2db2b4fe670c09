package main

import (
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/storage"
)

// options turns the configuration into the options of those who do the work,
// all of which log and count in the same places.
type options struct {
	config   *config.Config
	logger   *slog.Logger
	registry *prometheus.Registry
	files    fileBudget
	pages    []server.File
}

func (o options) storage() storage.Options { return storage.Options{Logger: o.logger} }

func (o options) log(s config.Stream) storage.LogOptions {
	return storage.LogOptions{
		DedupeWindow:   s.DedupeWindow,
		SegmentBytes:   int64(s.SegmentBytes),
		RetentionAge:   time.Duration(s.RetentionAge), // both understand a negative one as none
		RetentionBytes: int64(s.RetentionBytes),
		PerTopic:       s.PerTopic,
		WindowBytes:    int64(s.WindowBytes),
		OpenSegments:   o.files.segments,
		Registerer:     o.registry,
		Logger:         o.logger,
	}
}

// controlSegment is the size of a file of that log.
const controlSegment = 16 << 20

// control returns the options of the log that says what consumers have done. It is
// kept as long as it is needed, and goes on while the disk is full.
func (o options) control() storage.LogOptions {
	l := o.log(o.config.Streams.Dead)
	l.RetentionAge, l.RetentionBytes = -1, -1
	l.SegmentBytes, l.WindowBytes = controlSegment, 1<<20
	l.DedupeWindow = 1 // its records have no ids
	l.Vital = true
	return l
}

func (o options) memory(s config.OtherStream) storage.MemoryOptions {
	return storage.MemoryOptions{
		Bytes:        int64(s.RetentionBytes),
		Messages:     s.RetentionMessages,
		Age:          time.Duration(s.RetentionAge),
		PerTopic:     s.PerTopic,
		DedupeWindow: s.DedupeWindow,
		Registerer:   o.registry,
	}
}

func (o options) broker() broker.Options {
	l := o.config.Limits
	return broker.Options{
		MaxPayload:   int(l.PayloadBytes),
		MaxInFlight:  l.InFlight,
		MaxSubs:      l.Subscriptions,
		MaxAllSubs:   l.SubscriptionsTotal,
		PublishRate:  l.Rates.Publish,
		ReplayRate:   int(l.Rates.ReplayBytes),
		SoftOutbound: int(l.OutboundSoftBytes),
		HardOutbound: int(l.OutboundHardBytes),
		Registerer:   o.registry,
		Logger:       o.logger,
	}
}

func (o options) server(version string) server.Options {
	c := o.config
	return server.Options{
		Access:   o.access(),
		Version:  version,
		Dev:      c.Dev,
		Registry: o.registry,
		Logger:   o.logger,
		Limits:   o.limits(),
		Files:    o.pages,
	}
}

func (o options) limits() server.Limits {
	c, l := o.config, &o.config.Limits
	return server.Limits{
		PayloadBytes:          int(l.PayloadBytes),
		FrameBytes:            int(l.FrameBytes),
		PublishMessages:       l.PublishMessages,
		InFlight:              l.InFlight,
		Subscriptions:         l.Subscriptions,
		ReceivingBytes:        int(l.ReceivingBytes),
		Connections:           o.files.connections,
		ConnectionsPerAddress: l.ConnectionsPerAddress,
		HistoryMessages:       l.HistoryMessages,
		Rates:                 server.Rates{Connections: l.Rates.Connections, InboundBytes: int(l.Rates.InboundBytes)},
		PingInterval:          time.Duration(c.Ping.Interval),
		PingTimeout:           time.Duration(c.Ping.Timeout),
		ConnectTimeout:        time.Duration(c.Timeouts.Connect),
		WriteTimeout:          time.Duration(c.Timeouts.Write),
		BodyTimeout:           time.Duration(c.Timeouts.Body),
	}
}

// access reveals the secrets to the one who compares them.
func (o options) access() server.Access {
	auth := &o.config.Auth
	a := server.Access{
		JWT: server.JWT{
			Secret:   []byte(auth.JWT.Secret.Reveal()),
			Leeway:   time.Duration(auth.JWT.Leeway),
			Issuer:   auth.JWT.Issuer,
			Audience: auth.JWT.Audience,
		},
		Anonymous:      server.Anonymous(auth.Anonymous),
		Cookie:         auth.Cookie,
		AllowedOrigins: o.config.AllowedOrigins,
		AllowedHosts:   o.config.AllowedHosts,
		Loopback:       config.Loopback(o.config.Listen),
	}
	for _, k := range auth.APIKeys {
		a.APIKeys = append(a.APIKeys, server.APIKey{
			Name: k.Name, Key: k.Key.Reveal(), SHA256: k.SHA256.Reveal(),
			Publish: k.Publish, Subscribe: k.Subscribe, Consume: k.Consume,
		})
	}
	return a
}

// newLogger returns the logger that the configuration asks for, and its level.
func newLogger(c config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	setLevel(level, c)
	o := slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, &o)), level
	}
	return slog.New(slog.NewTextHandler(w, &o)), level
}

func setLevel(level *slog.LevelVar, c config.Log) {
	_ = level.UnmarshalText([]byte(c.Level)) // one of four words, see config
}
