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
}

func (o options) storage() storage.Options { return storage.Options{Logger: o.logger} }

func (o options) log() storage.LogOptions {
	s := o.config.Streams.Main
	return storage.LogOptions{
		DedupeWindow:   s.DedupeWindow,
		SegmentBytes:   int64(s.SegmentBytes),
		RetentionAge:   time.Duration(s.RetentionAge), // both understand a negative one as none
		RetentionBytes: int64(s.RetentionBytes),
		WindowBytes:    int64(s.WindowBytes),
		OpenSegments:   o.files.segments,
		Registerer:     o.registry,
		Logger:         o.logger,
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
		Anonymous:      server.Anonymous{Publish: auth.Anonymous.Publish, Subscribe: auth.Anonymous.Subscribe},
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

// newLogger returns the logger that the configuration asks for.
func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var o slog.HandlerOptions
	level := new(slog.LevelVar)
	_ = level.UnmarshalText([]byte(c.Level)) // one of four words, see config
	o.Level = level
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, &o))
	}
	return slog.New(slog.NewTextHandler(w, &o))
}
