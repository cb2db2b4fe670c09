package bridge

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// Bounds of the settings of the control topic. A start needs what was written since the last
// whole checkpoint began, which is at most some 64 MiB and ten minutes
// ago while nodes run; while none runs it must stay.
const (
	controlRetention      = 7 * 24 * time.Hour
	controlRetentionBytes = 512 << 20
	controlMessageBytes   = 1_000_000
)

// ControlTopic says how the control topic is to be created. Replication -1 is what Kafka has as default.
func ControlTopic(name string, replication int16) kafka.TopicSpec {
	spec := kafka.TopicSpec{Name: name, Partitions: 1, Replication: replication, Configs: map[string]string{
		"cleanup.policy":    "delete",
		"retention.ms":      "-1", // a cluster may stand still for as long as it likes
		"retention.bytes":   strconv.Itoa(1 << 30),
		"segment.bytes":     strconv.Itoa(64 << 20),
		"max.message.bytes": strconv.Itoa(1 << 20),
	}}
	if replication >= 3 {
		spec.Configs["min.insync.replicas"] = "2"
	}
	return spec
}

// check looks at the topic and its settings.
func (c *Control) check(ctx context.Context) (t kafka.Topic, err error) {
	var configs map[string]string
	mends := func(err error) bool { // who has just been configured wants to hear of it
		switch kafka.KindOf(err) {
		case kafka.BadLogin, kafka.BadTLS, kafka.Denied:
			return false
		default:
			return controlMends(err)
		}
	}
	err = c.persist(ctx, mends, func() (err error) {
		if t, err = c.opts.Client.Topic(ctx, c.opts.Topic); err == nil {
			configs, err = c.opts.Client.Configs(ctx, c.opts.Topic)
		}
		if kafka.KindOf(err) == kafka.NoTopic {
			return fmt.Errorf("there is no control topic %s: create it with 'tidewire kafka init'", c.opts.Topic)
		}
		return err
	})
	if err != nil {
		return t, err
	}
	if len(t.Partitions) != 1 {
		return t, fmt.Errorf("the control topic %s has %d partitions and must have one: delete it and run 'tidewire kafka init'", c.opts.Topic, len(t.Partitions))
	}
	return t, checkControlConfigs(c.opts.Topic, configs)
}

func checkControlConfigs(topic string, configs map[string]string) error {
	if policy := configs["cleanup.policy"]; policy != "delete" {
		return fmt.Errorf("cleanup.policy of the control topic %s is %q and must be \"delete\": records of it are not keyed", topic, policy)
	}
	for _, least := range []struct {
		name string
		n    int64
		why  string
	}{
		{"retention.ms", controlRetention.Milliseconds(), "what the last nodes wrote must still be there when the first one starts again; -1 is best"},
		{"retention.bytes", controlRetentionBytes, "a start reads what was written since the last checkpoint"},
		{"max.message.bytes", controlMessageBytes, "a node writes what has gathered as one record"},
	} {
		text, known := configs[least.name]
		n, err := strconv.ParseInt(text, 10, 64)
		if known && err == nil && n >= 0 && n < least.n {
			return fmt.Errorf("%s of the control topic %s is %d and must be at least %d: %s", least.name, topic, n, least.n, least.why)
		}
	}
	return nil
}
