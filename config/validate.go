package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// The bounds of what may be set: beyond them a broker does not work well, or
// not at all.
const (
	maxFrame        = 16 << 20  // is allocated before the bytes arrive
	maxPublish      = 100_000   // messages in one frame
	maxHistory      = 10_000    // messages in one answer, which is made in memory
	maxInFlight     = 1_000_000 // per connection
	maxSubs         = 1_000_000 // per connection
	maxConnections  = 10_000_000
	maxAllSubs      = 100_000_000
	maxRate         = 1_000_000_000
	minByteRate     = 1 << 10 // a second
	minDedupeWindow = 1000
	maxDedupeWindow = 100_000_000 // about 5 GB of memory
	minSegment      = 1 << 20
	maxSegment      = 4 << 30
	maxWindow       = 64 << 30
	minRetention    = 1 << 20
	maxTime         = time.Hour // of the timeouts
)

// Validate returns the first thing that makes no sense, as one sentence that
// says what to change.
func (c *Config) Validate() error {
	for _, check := range []func() error{
		c.checkAddresses, c.checkData, c.checkLog, c.checkAuth, c.checkOrigins, c.checkHosts,
		c.checkStreams, c.checkKafka, c.checkConsumers, c.checkLimits, c.checkTimes,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkAddresses() error {
	for _, a := range []struct{ path, address string }{{"listen", c.Listen}, {"admin", c.Admin}} {
		host, port, err := net.SplitHostPort(a.address)
		if err != nil {
			return fmt.Errorf("%s: %q is not an address; write host:port, such as 127.0.0.1:7070", a.path, a.address)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%s: %q is not a port; write a number from 0 (any free port) to 65535", a.path, port)
		} else if n == 0 {
			continue
		}
		if strings.ContainsAny(host, " /") {
			return fmt.Errorf("%s: %q is not a host; write a name or an IP address, without http://", a.path, host)
		}
	}
	if c.Listen == c.Admin && !strings.HasSuffix(c.Listen, ":0") {
		return fmt.Errorf("listen and admin are both %s; give them different ports", c.Listen)
	}
	return nil
}

// checkOpen refuses to let strangers in by accident.
func (c *Config) checkOpen() error {
	for _, a := range []struct{ path, address string }{{"listen", c.Listen}, {"admin", c.Admin}} {
		if Loopback(a.address) {
			continue
		}
		_, port, _ := net.SplitHostPort(a.address)
		if !c.Auth.Configured() {
			return fmt.Errorf("%s: %s can be reached from other machines, but nothing says who may do what; set auth.api_keys or auth.jwt.secret, or use an address of this machine alone, such as 127.0.0.1:%s", a.path, a.address, port)
		}
		if c.Dev {
			return fmt.Errorf("%s: %s can be reached from other machines, and --dev is for one machine; leave out --dev (and set allowed_origins), or use an address such as 127.0.0.1:%s", a.path, a.address, port)
		}
	}
	return nil
}

// Loopback reports whether only this machine can reach the address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (c *Config) checkData() error {
	if strings.TrimSpace(c.Data) == "" {
		return fmt.Errorf("data is empty; write the directory for the messages, such as ./tidewire-data")
	}
	if info, err := os.Stat(c.Data); err == nil && !info.IsDir() {
		return fmt.Errorf("data: %s is a file; write a directory, it is made if need be", c.Data)
	}
	if filepath.Clean(c.Data) == string(filepath.Separator) {
		return fmt.Errorf("data: %s is the root of the file system; write a directory of its own, such as /var/lib/tidewire", c.Data)
	}
	return nil
}

func (c *Config) checkLog() error {
	if err := oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"); err != nil {
		return err
	}
	return oneOf("log.format", c.Log.Format, "text", "json")
}

func oneOf(path, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	list := strings.Join(allowed[:len(allowed)-1], ", ") + " or " + allowed[len(allowed)-1]
	return fmt.Errorf("%s: %q is unknown; write %s", path, value, list)
}

func (c *Config) checkLimits() error {
	l := c.Limits
	for _, n := range []struct {
		name       string
		value      int
		from, upto int
	}{
		{"publish_messages", l.PublishMessages, 1, maxPublish},
		{"history_messages", l.HistoryMessages, 1, maxHistory},
		{"in_flight", l.InFlight, 1, maxInFlight},
		{"subscriptions", l.Subscriptions, 1, maxSubs},
		{"connections", l.Connections, 1, maxConnections},
		{"connections_per_address", l.ConnectionsPerAddress, 0, maxConnections},
		{"subscriptions_total", l.SubscriptionsTotal, 1, maxAllSubs},
		{"rates.publish", l.Rates.Publish, 0, maxRate},
		{"rates.connections", l.Rates.Connections, 0, maxConnections},
	} {
		if n.value < n.from || n.value > n.upto {
			return fmt.Errorf("limits.%s is %d; write a number from %d to %d", n.name, n.value, n.from, n.upto)
		}
	}
	if l.PayloadBytes < 1 {
		return fmt.Errorf("limits.payload_bytes is %v; write a size from 1 up, such as 256KiB", l.PayloadBytes)
	}
	if l.FrameBytes > maxFrame || l.FrameBytes < 0 {
		return fmt.Errorf("limits.frame_bytes is %v; write at most %v, since a client claims that much memory with a few bytes", l.FrameBytes, Size(maxFrame))
	}
	if least := frameFor(l.PayloadBytes); l.FrameBytes < least {
		return fmt.Errorf("limits.frame_bytes is %v, but a payload of %v (limits.payload_bytes) needs a frame of %d bytes when it is sent as base64; raise the one or lower the other", l.FrameBytes, l.PayloadBytes, least)
	}
	if err := c.checkBytes(); err != nil {
		return err
	}
	if l.OutboundSoftBytes < 64<<10 {
		return fmt.Errorf("limits.outbound_soft_bytes is %v; write at least 64KiB, which is one chunk of deliveries", l.OutboundSoftBytes)
	}
	if least := l.OutboundSoftBytes + l.FrameBytes; l.OutboundHardBytes < least {
		return fmt.Errorf("limits.outbound_hard_bytes is %v; write at least %v, which is outbound_soft_bytes and one frame", l.OutboundHardBytes, least)
	}
	return nil
}

// checkBytes checks the bounds of bytes of the whole broker, and those in a
// second.
func (c *Config) checkBytes() error {
	l := c.Limits
	if least := 4 * l.FrameBytes; l.ReceivingBytes < least {
		return fmt.Errorf("limits.receiving_bytes is %v; write at least %v, which is four frames (limits.frame_bytes)", l.ReceivingBytes, least)
	}
	for _, r := range []struct {
		name  string
		value Size
	}{{"inbound_bytes", l.Rates.InboundBytes}, {"replay_bytes", l.Rates.ReplayBytes}} {
		if r.value != 0 && (r.value < minByteRate || r.value > maxRate) {
			return fmt.Errorf("limits.rates.%s is %v; write 0 for no limit, or a size from %v to %v, which is for a second", r.name, r.value, Size(minByteRate), Size(maxRate))
		}
	}
	return nil
}

// frameFor returns the size of the smallest frame that holds any message with
// that payload in either codec.
func frameFor(payload Size) Size {
	if payload > maxFrame {
		return payload
	}
	return (payload+2)/3*4 + protocol.MaxMessageOverhead
}

func (c *Config) checkTimes() error {
	for _, t := range []struct {
		path       string
		value      Duration
		from, upto time.Duration
	}{
		{"ping.interval", c.Ping.Interval, time.Second, maxTime},
		{"ping.timeout", c.Ping.Timeout, time.Second, maxTime},
		{"timeouts.connect", c.Timeouts.Connect, time.Second, maxTime},
		{"timeouts.write", c.Timeouts.Write, time.Second, maxTime},
		{"timeouts.body", c.Timeouts.Body, time.Second, maxTime},
		{"shutdown.drain", c.Shutdown.Drain, 0, maxTime},
		{"shutdown.spread", c.Shutdown.Spread, 0, maxTime},
		{"auth.jwt.leeway", c.Auth.JWT.Leeway, 0, 5 * time.Minute},
	} {
		if d := time.Duration(t.value); d < t.from || d > t.upto {
			return fmt.Errorf("%s is %v; write a time span from %v to %v", t.path, t.value, Duration(t.from), Duration(t.upto))
		}
	}
	return nil
}
