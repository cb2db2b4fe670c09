package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

const (
	maxStreams         = 100 // each has files, goroutines and a window of its own
	maxStreamName      = 64
	defaultMemoryBytes = 64 << 20
	maxMemoryBytes     = 64 << 30
	maxPerTopic        = 1_000_000 // messages whose offsets are kept in memory for each topic
)

// ownLogs are the names of logs that are no streams: on disk or in Kafka they lie
// beside those of the streams.
var ownLogs = []string{"control", "soft", "bad"}

func defaultStream() Stream {
	return Stream{
		RetentionAge:   Duration(7 * day),
		RetentionBytes: 10 << 30,
		DedupeWindow:   1_000_000,
		SegmentBytes:   128 << 20,
		WindowBytes:    64 << 20,
		Partitions:     defaultPartition,
	}
}

// deadStream has its own defaults: dead letters wait for somebody to look at them.
func deadStream() Stream {
	s := defaultStream()
	s.RetentionAge = Duration(30 * day)
	s.SegmentBytes = 16 << 20
	return s
}

// notSet is the size of a setting whose default depends on others.
const notSet Size = -2

// setDefaults makes an element of the list what holds where nothing is set.
func (s *OtherStream) setDefaults() {
	s.Storage, s.Stream = StorageDisk, defaultStream()
	s.RetentionBytes = notSet
}

// fillStreams sets the defaults that depend on other settings.
func (c *Config) fillStreams() {
	for i := range c.Streams.Others {
		s := &c.Streams.Others[i]
		switch {
		case s.RetentionBytes != notSet:
		case s.Storage == StorageMemory:
			s.RetentionBytes = defaultMemoryBytes
		default:
			s.RetentionBytes = defaultStream().RetentionBytes
		}
	}
}

func (c *Config) checkStreams() error {
	if err := c.checkStream("streams.main.", &c.Streams.Main); err != nil {
		return err
	}
	if err := c.checkStream("streams.dead.", &c.Streams.Dead); err != nil {
		return err
	}
	others := c.Streams.Others
	if len(others) > maxStreams {
		return fmt.Errorf("streams.others has %d streams; write at most %d", len(others), maxStreams)
	}
	for i := range others {
		at := fmt.Sprintf("streams.others[%d]", i)
		if err := checkStreamName(at, others, i); err != nil {
			return err
		}
		if err := checkStreamFilters(at, others, i); err != nil {
			return err
		}
		check := c.checkStream
		switch others[i].Storage {
		case StorageDisk:
			if others[i].RetentionMessages != 0 {
				return fmt.Errorf("%s.retention_messages is %d, but messages are counted in memory alone; leave it out, or write storage: memory", at, others[i].RetentionMessages)
			}
		case StorageMemory:
			check = others[i].checkMemory
		}
		if err := oneOf(at+".storage", others[i].Storage, StorageDisk, StorageMemory); err != nil {
			return err
		}
		if err := check(at+".", &others[i].Stream); err != nil {
			return err
		}
	}
	return nil
}

func checkStreamName(at string, others []OtherStream, i int) error {
	name := others[i].Name
	switch {
	case name == "":
		return fmt.Errorf("%s has no name; give it one, such as name: orders", at)
	case len(name) > maxStreamName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
		return fmt.Errorf("%s.name: %.80q is not a name for a stream; write at most %d of a-z, 0-9, '-' and '_'", at, name, maxStreamName)
	case name == streamMain:
		return fmt.Errorf("%s.name: main is the stream of all topics that no other has; set it up under streams.main, or choose another name", at)
	case name == streamDead, slices.Contains(ownLogs, name):
		return fmt.Errorf("%s.name: %s is the name of a stream of the broker's own; choose another", at, name)
	}
	for j := range others[:i] {
		if others[j].Name == name {
			return fmt.Errorf("%s.name: %q is the name of streams.others[%d] too; give each stream its own", at, name, j)
		}
	}
	return nil
}

// checkStreamFilters refuses filters that could never give their stream a topic:
// where several match, the stream that is listed first has it.
func checkStreamFilters(at string, others []OtherStream, i int) error {
	s := &others[i]
	if len(s.Filters) == 0 {
		return fmt.Errorf("%s (%s) has no filters; write the topics that it holds, such as filters: [%s.>]", at, s.Name, s.Name)
	}
	for n, text := range s.Filters {
		at := fmt.Sprintf("%s.filters[%d]", at, n)
		f, err := protocol.ParseFilter(text)
		if err != nil {
			return fmt.Errorf("%s: %s", at, protocol.AsError(err).Message)
		}
		if protocol.IsReserved(text) {
			return fmt.Errorf("%s: %q begins with '$', and such topics belong to the broker; remove it", at, text)
		}
		for _, before := range others[:i] {
			for _, taken := range before.Filters {
				if t, _ := protocol.ParseFilter(taken); t.Covers(f) {
					return fmt.Errorf("%s: all topics of %q belong to the stream %s, which is listed before %s and has the filter %q; list %s first, or remove the filter", at, text, before.Name, s.Name, taken, s.Name)
				}
			}
		}
	}
	return nil
}

// checkStream checks what holds for every stream on disk.
func (c *Config) checkStream(at string, s *Stream) error {
	if err := checkRetention(at, s); err != nil {
		return err
	}
	if s.RetentionBytes != Unlimited && s.RetentionBytes < minRetention {
		return fmt.Errorf("%sretention_bytes is %v; write at least %v, or unlimited", at, s.RetentionBytes, Size(minRetention))
	}
	if err := checkDedupe(at, s); err != nil {
		return err
	}
	if s.SegmentBytes < minSegment || s.SegmentBytes > maxSegment {
		return fmt.Errorf("%ssegment_bytes is %v; write a size from %v to %v", at, s.SegmentBytes, Size(minSegment), Size(maxSegment))
	}
	if s.WindowBytes < c.Limits.FrameBytes || s.WindowBytes > maxWindow {
		return fmt.Errorf("%swindow_bytes is %v; write a size from %v (limits.frame_bytes) to %v", at, s.WindowBytes, c.Limits.FrameBytes, Size(maxWindow))
	}
	return nil
}

// checkMemory checks a stream in memory: it must be bounded.
func (s *OtherStream) checkMemory(at string, _ *Stream) error {
	if err := checkRetention(at, &s.Stream); err != nil {
		return err
	}
	if s.RetentionBytes < minRetention || s.RetentionBytes > maxMemoryBytes {
		return fmt.Errorf("%sretention_bytes is %v; a stream in memory needs a bound, write a size from %v to %v", at, s.RetentionBytes, Size(minRetention), Size(maxMemoryBytes))
	}
	if s.RetentionMessages < 0 {
		return fmt.Errorf("%sretention_messages is %d; write a number of messages, or 0 for no bound", at, s.RetentionMessages)
	}
	if d := defaultStream(); s.SegmentBytes != d.SegmentBytes || s.WindowBytes != d.WindowBytes {
		return fmt.Errorf("%ssegment_bytes and %swindow_bytes mean nothing for a stream in memory; leave them out, retention_bytes says how much it holds", at, at)
	}
	return checkDedupe(at, &s.Stream)
}

func checkRetention(at string, s *Stream) error {
	if s.PerTopic < 0 || s.PerTopic > maxPerTopic {
		return fmt.Errorf("%smax_messages_per_topic is %d; write a number of messages up to %d, or 0 for no bound", at, s.PerTopic, maxPerTopic)
	}
	if s.RetentionAge != Forever && time.Duration(s.RetentionAge) < time.Minute {
		return fmt.Errorf("%sretention_age is %v; write at least 1m, or forever", at, s.RetentionAge)
	}
	return nil
}

func checkDedupe(at string, s *Stream) error {
	if s.DedupeWindow < minDedupeWindow || s.DedupeWindow > maxDedupeWindow {
		return fmt.Errorf("%sdedupe_window is %d; write a number of ids from %d to %d", at, s.DedupeWindow, minDedupeWindow, maxDedupeWindow)
	}
	return nil
}
