package config_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/protocol"
)

// consumers writes a list of them.
func consumers(list ...string) string { return "consumers: [{" + strings.Join(list, "}, {") + "}]\n" }

// asSettings returns a consumer's settings as the broker knows them.
func asSettings(c *config.Consumer) consumer.Settings {
	return consumer.Settings{
		AckWait:     time.Duration(c.AckWait),
		Backoff:     consumer.Backoff{Base: time.Duration(c.Backoff.Base), Cap: time.Duration(c.Backoff.Cap), Factor: c.Backoff.Factor, Jitter: c.Backoff.Jitter},
		MaxDeliver:  c.MaxDeliver,
		MaxInFlight: c.MaxInFlight, MaxInFlightBytes: int64(c.MaxInFlightBytes), MaxWaiting: c.MaxWaiting,
		Exclusive: c.Exclusive, Ordered: c.Ordered,
	}
}

func TestConsumerDefaultsAreTheBrokers(t *testing.T) {
	c := load(t, consumers("name: mail, filter: mail.>"))
	if got, want := asSettings(&c.Consumers[0]), consumer.DefaultSettings(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if k := c.Consumers[0]; k.Name != "mail" || k.Filter != "mail.>" || k.Stream != "" || k.From != "earliest" {
		t.Errorf("got %+v", k)
	}
}

// The bounds are the broker's: what one lets pass the other does too.
func TestConsumerBoundsAreTheBrokers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	around := func(bounds ...int64) int64 { return bounds[rng.IntN(len(bounds))] + rng.Int64N(3) - 1 }
	ms := func(bounds ...time.Duration) config.Duration {
		return config.Duration(bounds[rng.IntN(len(bounds))] + time.Duration(rng.Int64N(3)-1)*time.Millisecond)
	}
	accepted := 0
	const rounds = 4000
	c := load(t, consumers("name: mail, filter: mail.>"))
	plain := c.Consumers[0]
	for range rounds {
		k := &c.Consumers[0]
		*k = plain
		for range 1 + rng.IntN(2) {
			switch rng.IntN(7) {
			case 0:
				k.AckWait = ms(time.Millisecond, consumer.MinAckWait, consumer.MaxAckWait)
			case 1:
				k.Backoff.Cap = ms(time.Millisecond, consumer.MaxBackoff)
			case 2:
				k.Backoff.Factor = []float64{0, 0.99, 1, 1.01, consumer.MaxBackoffFactor, consumer.MaxBackoffFactor + 0.01}[rng.IntN(6)]
			case 3:
				k.MaxDeliver = int(around(1, consumer.MaxDeliverLimit))
			case 4:
				k.MaxInFlight = int(around(1, consumer.MaxInFlightLimit))
			case 5:
				k.MaxInFlightBytes = config.Size(around(1, consumer.MinInFlightBytes, consumer.MaxInFlightBytesLimit))
			default:
				k.MaxWaiting = int(around(1, consumer.MaxWaitingLimit))
			}
		}
		ours, brokers := c.Validate(), asSettings(k).Check()
		if (ours == nil) != (brokers == nil) {
			t.Fatalf("%+v: here %v, the broker %v", k, ours, brokers)
		}
		if ours == nil {
			accepted++
		}
	}
	if accepted < rounds/4 || accepted > rounds*3/4 {
		t.Errorf("%d of %d are accepted", accepted, rounds)
	}
}

func TestConsumersAreRead(t *testing.T) {
	c, err := config.Load(config.Source{
		File: file(t, `consumers:
  - name: mail
    filter: mail.>
    from: -1h
    ack_wait: 1m30s
    backoff: {base: 5s, factor: 1.5, cap: 30s, jitter: false}
    max_deliver: 3
    max_in_flight: 10
    max_in_flight_bytes: 1MiB
    max_waiting: 100
    exclusive: true
    ordered: false
  - {name: bills, filter: "$dead.mail"}
`),
		Environment: []string{"TIDEWIRE_CONSUMERS_1_BACKOFF_FACTOR=3", "TIDEWIRE_CONSUMERS_2_NAME=c", "TIDEWIRE_CONSUMERS_2_FILTER=c", "TIDEWIRE_CONSUMERS_2_MAX_DELIVER=4"},
	})
	if err != nil {
		t.Fatal(err)
	}
	plain := load(t, consumers("name: x, filter: x")).Consumers[0]
	second, third := plain, plain
	second.Name, second.Filter, second.Backoff.Factor = "bills", "$dead.mail", 3
	third.Name, third.Filter, third.MaxDeliver = "c", "c", 4
	want := []config.Consumer{{
		Name: "mail", Filter: "mail.>", From: "-1h", AckWait: config.Duration(90 * time.Second),
		Backoff:    config.Backoff{Base: config.Duration(5 * time.Second), Factor: 1.5, Cap: config.Duration(30 * time.Second)},
		MaxDeliver: 3, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, MaxWaiting: 100, Exclusive: true,
	}, second, third}
	if !reflect.DeepEqual(c.Consumers, want) {
		t.Errorf("got  %+v\nwant %+v", c.Consumers, want)
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if again := load(t, string(text)); !reflect.DeepEqual(again.Consumers, want) {
		t.Errorf("printed and read: %+v\n%s", again.Consumers, text)
	}
}

func TestConsumersThatMakeNoSense(t *testing.T) {
	const two = "streams: {others: [{name: orders, filters: [orders.>]}]}\n"
	one := func(more string) string { return consumers("name: a, filter: a, " + more) }
	many := strings.Repeat("{name: a, filter: a}, ", 1001)
	for _, r := range []refusal{
		{consumers("filter: a"), "consumers[0] has no name; give it one, such as name: mail"},
		{consumers("name: a.b, filter: a"), "consumers[0].name: " + protocol.CheckConsumer("a.b").Message},
		{consumers("name: a, filter: a", "name: a, filter: b"), `consumers[1].name: "a" is the name of consumers[0] too; give each its own`},
		{consumers("name: a"), "consumers[0] (a) has no filter; write the topics that it reads, such as filter: a.>"},
		{consumers("name: a, filter: a..b"), "consumers[0].filter: " + badFilter("a..b")},
		{consumers("name: a, filter: $redrive.a"), `consumers[0].filter: "$redrive.a" begins with '$', and of the broker's own topics consumers read dead letters alone; write one that $dead.> covers`},
		{consumers("name: a, filter: $dead.>"), `consumers[0].filter: "$dead.>" would give the consumer its own dead letters, again and again; write topics of your own, or the dead letters of another consumer`},
		{one("stream: oders"), `consumers[0].stream: there is no stream "oders"; write one of dead, main`},
		{two + one("stream: oders"), `consumers[0].stream: there is no stream "oders"; write one of orders, dead, main`},
		{two + consumers("name: a, filter: '>'"), `consumers[0] (a) has no stream, but its filter ">" could match topics of the streams orders, main; write stream: and one of them`},
		{one("from: yesterday"), "consumers[0].from: " + badStart("yesterday")},
		{one("from: last-per-topic"), "consumers[0].from: a consumer gets every message, so it cannot begin with last-per-topic; write earliest, new, last:N, -10m, a time or a position"},
		{one("ack_wait: 50ms"), "consumers[0].ack_wait is 50ms; write a time span from 100ms to 12h"},
		{one("ack_wait: forever"), "consumers[0].ack_wait is forever; write a time span from 100ms to 12h"},
		{one("ack_wait: 100500us"), "consumers[0].ack_wait is 100.5ms; write whole milliseconds"},
		{one("backoff: {base: forever}"), "consumers[0].backoff.base is forever; write a time span, such as 1s"},
		{one("backoff: {base: 1us}"), "consumers[0].backoff.base is 1µs; write whole milliseconds"},
		{one("backoff: {cap: 2m}"), "consumers[0].backoff.cap is 2m; write a time span from 0s to 1m"},
		{one("backoff: {factor: 0.5}"), "consumers[0].backoff.factor is 0.5; write a number from 1 to 100"},
		{one("backoff: {factor: .nan}"), "line 1: consumers[0].backoff.factor: \".nan\" is not a number; write one such as 1.5"},
		{one("backoff: {factor: two}"), "line 1: consumers[0].backoff.factor: \"two\" is not a number; write one such as 1.5"},
		{one("backof: {}"), `line 1: there is no setting "consumers[0].backof"; did you mean "consumers[0].backoff"?`},
		{one("max_deliver: 0"), "consumers[0].max_deliver is 0; write a number from 1 to 1000"},
		{one("max_in_flight: 65537"), "consumers[0].max_in_flight is 65537; write a number from 1 to 65536"},
		{one("max_waiting: 0"), "consumers[0].max_waiting is 0; write a number from 1 to 1000000"},
		{one("max_in_flight_bytes: unlimited"), "consumers[0].max_in_flight_bytes is unlimited; write a size from 1KiB to 1GiB"},
		{"consumers: [" + strings.TrimSuffix(many, ", ") + "]", "consumers has 1001 of them; write at most 1000"},
	} {
		name := file(t, r.given)
		_, err := config.Load(config.Source{File: name})
		if strings.HasPrefix(r.want, "line ") {
			r.want = name + ", " + r.want
		}
		checkSentence(t, r.given, err, r.want)
	}
}

func badStart(s string) string {
	_, err := protocol.ParseStart(s)
	return protocol.AsError(err).Message
}

// A consumer may read a stream that is named although its filter could match
// topics of several, and any stream that holds it alone.
func TestConsumersOfStreams(t *testing.T) {
	const streams = "streams: {others: [{name: orders, filters: [orders.>]}]}\n"
	for _, k := range []string{"filter: '>', stream: main", "filter: '>', stream: orders", "filter: orders.eu", "filter: '$dead.*.x'", "filter: $dead.x, stream: dead"} {
		load(t, streams+consumers("name: a, "+k))
	}
}

// All of them may change while the broker runs; it refuses what is fixed.
func TestReloadOfConsumers(t *testing.T) {
	before := load(t, consumers("name: a, filter: a"))
	merged, changed, kept, err := before.Reload(load(t, consumers("name: a, filter: a, max_deliver: 4", "name: b, filter: b")))
	if err != nil || !slices.Equal(changed, []string{"consumers"}) || len(kept) != 0 || len(merged.Consumers) != 2 || merged.Consumers[0].MaxDeliver != 4 {
		t.Errorf("changed %v, kept %v, %v, %+v", changed, kept, err, merged)
	}
	// The streams stay those of the start, so a consumer cannot read a new one.
	const streams = "streams: {others: [{name: orders, filters: [orders.>]}]}\n"
	_, _, _, err = before.Reload(load(t, streams+consumers("name: a, filter: a, stream: orders")))
	if want := `consumers[0].stream: there is no stream "orders"; write one of dead, main`; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
