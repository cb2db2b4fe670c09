package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/protocol"
)

// A refusal is a file or a variable and the sentence that it gets.
type refusal struct{ given, want string }

// checkSentence holds what all sentences have in common.
func checkSentence(t *testing.T, given string, err error, want string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s\nis accepted, want: %s", given, want)
		return
	}
	if got := err.Error(); got != want {
		t.Errorf("%s\n got: %s\nwant: %s", given, got, want)
	}
	if strings.ContainsAny(err.Error(), "\n\t") {
		t.Errorf("more than one line: %q", err)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	for _, r := range []refusal{
		{"listn: x", `line 1: there is no setting "listn"; did you mean "listen"?`},
		{"listen: 127.0.0.1:1\nstreams:\n  main:\n    retension_age: 3d", `line 4: there is no setting "streams.main.retension_age"; did you mean "streams.main.retention_age"?`},
		{"retention_age: 3d", `line 1: there is no setting "retention_age"; did you mean "streams.main.retention_age"?`},
		{"auth:\n  api_keys:\n    - nam: x", `line 3: there is no setting "auth.api_keys[0].nam"; did you mean "auth.api_keys[0].name"?`},
		{"auth:\n  zzzzzzz: 1", `line 2: there is no setting "auth.zzzzzzz"; known here are api_keys, jwt, cookie, anonymous`},
		{"listen: a\nlisten: b", `line 2: listen is set in line 1 already; keep one of them`},
		{"a: b: c", `line 1: this is not YAML: mapping value is not allowed in this context`},
		{"- a", "line 1: this is not a list of settings; write them as `key: value`, such as `listen: 127.0.0.1:7070`"},
		{"log: debug", `line 1: log has no value of its own; write its settings in the lines below, indented: level, format`},
		{"listen: [a]", `line 1: listen is one value, not a list and not a group of settings`},
		{"allowed_hosts: a", "line 1: allowed_hosts is a list; write its elements in the lines below, each behind `- `, or write []"},
		{"allowed_hosts: [a, null]", "line 1: allowed_hosts[1] is empty; write a value behind its `-`, or remove it"},
		{"dev: yes", `line 1: dev: "yes" is neither true nor false; write one of them`},
		{"limits:\n  in_flight: 1e3", `line 2: limits.in_flight: "1e3" is not a whole number; write one such as 1000`},
		{"limits:\n  frame_bytes: 1 meg", `line 2: limits.frame_bytes: "1 meg" is not a size; write a number of bytes, or one with a unit, such as 256KiB, 64MiB or 10GiB`},
		{"ping:\n  interval: 25", `line 2: ping.interval: "25" is not a time span; write a number with its unit, such as 500ms, 25s, 10m, 168h or 7d`},
		{"listen: &a x", `line 1: anchors, aliases, merges and tags are not read here; write the value itself`},
		{"<<: {listen: x}", `line 1: anchors, aliases, merges and tags are not read here; write the value itself`},
		{"dev: true\n---\ndev: false", `line 3: a second document begins here, but one is read; remove the line --- and what follows`},
	} {
		name := file(t, r.given+"\n")
		_, err := config.Load(config.Source{File: name})
		checkSentence(t, r.given, err, name+", "+r.want)
	}
}

func TestMissingFiles(t *testing.T) {
	dir := t.TempDir()
	absent := filepath.Join(dir, "absent.yaml")
	_, err := config.Load(config.Source{File: absent})
	checkSentence(t, absent, err, "the configuration file "+absent+" cannot be read: no such file or directory")
	_, err = config.Load(config.Source{File: dir})
	checkSentence(t, dir, err, "the configuration file "+dir+" is a directory; give the path of the file in it")
	_, err = config.Load(config.Source{Environment: []string{"TIDEWIRE_AUTH_JWT_SECRET_FILE=" + absent}})
	checkSentence(t, absent, err, "auth.jwt.secret_file: "+absent+" cannot be read: no such file or directory")
}

func TestVariablesThatCannotBeRead(t *testing.T) {
	for _, r := range []refusal{
		{"TIDEWIRE_LISTN=x", "there is no variable TIDEWIRE_LISTN; did you mean TIDEWIRE_LISTEN?"},
		{"TIDEWIRE_SERVR=x", "there is no variable TIDEWIRE_SERVR; did you mean TIDEWIRE_SERVER?"},
		{"TIDEWIRE_RETENTION_AGE=1d", "there is no variable TIDEWIRE_RETENTION_AGE; did you mean TIDEWIRE_STREAMS_MAIN_RETENTION_AGE?"},
		{"TIDEWIRE_FOO_BAR_BAZ=1", "there is no variable TIDEWIRE_FOO_BAR_BAZ; unset it, or see `tidewire config print` for the settings that exist"},
		{"TIDEWIRE_ADMIN_PORT=7071", "there is no variable TIDEWIRE_ADMIN_PORT; unset it, or see `tidewire config print` for the settings that exist"},
		{"TIDEWIRE_DEV=1", `TIDEWIRE_DEV: "1" is neither true nor false; write one of them`},
		{"TIDEWIRE_LIMITS_IN_FLIGHT=many", `TIDEWIRE_LIMITS_IN_FLIGHT: "many" is not a whole number; write one such as 1000`},
		{"TIDEWIRE_AUTH_API_KEYS_1_NAME=a", "TIDEWIRE_AUTH_API_KEYS_1_NAME: the number is 1, but there are 0 before; number them 0, 1, 2 and so on"},
		{"TIDEWIRE_AUTH_API_KEYS_99999999999999999999_NAME=a", "TIDEWIRE_AUTH_API_KEYS_99999999999999999999_NAME: the number is 2147483647, but there are 0 before; number them 0, 1, 2 and so on"},
	} {
		_, err := config.Load(config.Source{Environment: []string{r.given}})
		checkSentence(t, r.given, err, r.want)
	}
}

// badFilter returns what protocol says about a filter.
func badFilter(f string) string {
	_, err := protocol.ParseFilter(f)
	return protocol.AsError(err).Message
}

// others writes streams beside main.
func others(streams ...string) string {
	return "streams: {others: [{" + strings.Join(streams, "}, {") + "}]}"
}

// kafka writes a configuration file of a cluster.
func kafka(settings string) string {
	return "kafka: {brokers: ['k:9092'], " + settings + "}"
}

func TestWhatMakesNoSense(t *testing.T) {
	plain := file(t, "")
	key := "auth: {api_keys: [{name: a, key: " + someKey + "}]}\n"
	token := "auth: {jwt: {secret: " + someSecret + "}}\n"
	for _, r := range []refusal{
		{"listen: 7070", `listen: "7070" is not an address; write host:port, such as 127.0.0.1:7070`},
		{"admin: 127.0.0.1:http", `admin: "http" is not a port; write a number from 0 (any free port) to 65535`},
		{"listen: 'http://localhost:7070'", `listen: "http://localhost:7070" is not an address; write host:port, such as 127.0.0.1:7070`},
		{"listen: 'a b:7070'", `listen: "a b" is not a host; write a name or an IP address, without http://`},
		{"admin: 127.0.0.1:7070", `listen and admin are both 127.0.0.1:7070; give them different ports`},
		{"listen: 0.0.0.0:7070", `listen: 0.0.0.0:7070 can be reached from other machines, but nothing says who may do what; set auth.api_keys or auth.jwt.secret, or use an address of this machine alone, such as 127.0.0.1:7070`},
		{"listen: ':7070'", `listen: :7070 can be reached from other machines, but nothing says who may do what; set auth.api_keys or auth.jwt.secret, or use an address of this machine alone, such as 127.0.0.1:7070`},
		{"admin: '[::]:7071'", `admin: [::]:7071 can be reached from other machines, but nothing says who may do what; set auth.api_keys or auth.jwt.secret, or use an address of this machine alone, such as 127.0.0.1:7071`},
		{"listen: 0.0.0.0:7070\ndev: true\n" + key, `listen: 0.0.0.0:7070 can be reached from other machines, and --dev is for one machine; leave out --dev (and set allowed_origins), or use an address such as 127.0.0.1:7070`},
		{"data: ' '", `data is empty; write the directory for the messages, such as ./tidewire-data`},
		{"data: /", `data: / is the root of the file system; write a directory of its own, such as /var/lib/tidewire`},
		{"data: " + plain, `data: ` + plain + ` is a file; write a directory, it is made if need be`},
		{"log: {level: loud}", `log.level: "loud" is unknown; write debug, info, warn or error`},
		{"log: {format: xml}", `log.format: "xml" is unknown; write text or json`},

		{"auth: {api_keys: [{key: " + someKey + "}]}", `auth.api_keys[0] has no name; give it one, such as name: orders-backend`},
		{"auth: {api_keys: [{name: a.b, key: " + someKey + "}]}", `auth.api_keys[0].name: "a.b" is not one token; write letters, digits, '-' and '_'`},
		{"auth: {api_keys: [{name: a}]}", "auth.api_keys[0] (a) has no key; write key: twk_ and at least 20 random characters, such as `openssl rand -hex 24` prints"},
		{"auth: {api_keys: [{name: a, key: x" + someKey + "}]}", `auth.api_keys[0].key (a) does not begin with twk_; put that in front of it, here and where it is used`},
		{"auth: {api_keys: [{name: a, key: twk_short}]}", "auth.api_keys[0].key (a) has 9 characters, which can be guessed; write twk_ and at least 20 random ones, such as `openssl rand -hex 24` prints"},
		{"auth: {api_keys: [{name: a, key: '" + someKey + " x'}]}", `auth.api_keys[0].key (a) has white space in it, which no header carries; remove it`},
		{"auth: {api_keys: [{name: a, key: " + someKey + ", sha256: " + someHash + "}]}", `auth.api_keys[0] (a) has both key and sha256; keep one of them`},
		{"auth: {api_keys: [{name: a, sha256: abc}]}", "auth.api_keys[0].sha256 (a) is not a SHA-256 in hex; write the 64 digits that `printf %s KEY | sha256sum` prints"},
		{"auth: {api_keys: [{name: a, key: " + someKey + "}, {name: a, sha256: " + someHash + "}]}", `auth.api_keys[1].name: "a" is the name of auth.api_keys[0] too; give each key its own`},
		{"auth: {api_keys: [{name: a, key: " + someKey + "}, {name: b, key: " + someKey + "}]}", `auth.api_keys[1] is the same key as auth.api_keys[0]; give each its own, or remove one`},
		{"auth: {api_keys: [{name: a, key: " + someKey + ", publish: ['a.>', 'a..b']}]}", `auth.api_keys[0].publish[1]: ` + badFilter("a..b")},
		{"auth: {api_keys: [{name: a, key: " + someKey + ", subscribe: ['{sub}>']}]}", `auth.api_keys[0].subscribe[0]: "{sub}>", with x for {sub}: ` + badFilter("x>")},
		{"auth: {api_keys: [{name: a, key: " + someKey + ", consume: ['a.{user}']}]}", `auth.api_keys[0].consume[0]: "a.{user}" has {user} in it, which is not known; {sub} is the only template`},
		{"auth: {jwt: {secret: short}}", "auth.jwt.secret has 5 bytes, but HS256 needs at least 32; use what `openssl rand -base64 32` prints"},
		{"auth: {jwt: {secret: " + someSecret + ", secret_file: x}}", `auth.jwt.secret and auth.jwt.secret_file are both set; keep one of them`},
		{"auth: {jwt: {secret_file: " + plain + "x}}", `auth.jwt.secret_file: ` + plain + `x cannot be read: no such file or directory`},
		{"auth: {jwt: {issuer: x}}", `auth.jwt.issuer and auth.jwt.audience mean nothing without a secret; set auth.jwt.secret or auth.jwt.secret_file too`},
		{"auth: {jwt: {leeway: 1h}}", `auth.jwt.leeway is 1h; write a time span from 0s to 5m`},
		{"auth: {cookie: session}", `auth.cookie is set without a secret, so no cookie is valid; set auth.jwt.secret or auth.jwt.secret_file too`},
		{"auth: {cookie: 'a b'}", `auth.cookie: "a b" is not the name of a cookie; write letters, digits, '-' and '_'`},
		{"auth: {anonymous: {publish: ['u.{sub}']}}", `auth.anonymous.publish[0]: "u.{sub}" has {sub} in it, but there is no subject here; write the filter without it`},
		{"auth: {anonymous: {publish: []}}", `auth.anonymous allows nothing, and nobody can be anything else; remove it, or set auth.api_keys or auth.jwt.secret`},

		{"allowed_origins: [example.com]", `allowed_origins[0]: "example.com" is not an origin; write scheme://host or scheme://host:port without a path or a final /, such as https://app.example.com`},
		{"allowed_origins: ['https://example.com/']", `allowed_origins[0]: "https://example.com/" is not an origin; write scheme://host or scheme://host:port without a path or a final /, such as https://app.example.com`},
		{"allowed_origins: ['*']\n" + strings.Replace(token, "{jwt", "{cookie: s, jwt", 1), `allowed_origins[0]: "*" would let any page use its visitors' cookies (auth.cookie is set); write the origins of your pages, such as https://app.example.com`},
		{"allowed_hosts: ['https://a.example']", `allowed_hosts[0]: "https://a.example" is not a host; write a name as it stands in URLs, such as push.example.com or push.example.com:8443`},

		{"streams: {main: {retention_age: 1s}}", `streams.main.retention_age is 1s; write at least 1m, or forever`},
		{"streams: {main: {retention_bytes: 1KiB}}", `streams.main.retention_bytes is 1KiB; write at least 1MiB, or unlimited`},
		{"streams: {main: {dedupe_window: 1}}", `streams.main.dedupe_window is 1; write a number of ids from 1000 to 100000000`},
		{"streams: {main: {segment_bytes: 1KiB}}", `streams.main.segment_bytes is 1KiB; write a size from 1MiB to 4GiB`},
		{"streams: {main: {segment_bytes: unlimited}}", `streams.main.segment_bytes is unlimited; write a size from 1MiB to 4GiB`},
		{"streams: {main: {window_bytes: 1KiB}}", `streams.main.window_bytes is 1KiB; write a size from 1MiB (limits.frame_bytes) to 64GiB`},

		{others("filters: [a]"), `streams.others[0] has no name; give it one, such as name: orders`},
		{others("name: A, filters: [a]"), `streams.others[0].name: "A" is not a name for a stream; write at most 64 of a-z, 0-9, '-' and '_'`},
		{others("name: ../x, filters: [a]"), `streams.others[0].name: "../x" is not a name for a stream; write at most 64 of a-z, 0-9, '-' and '_'`},
		{others("name: main, filters: [a]"), `streams.others[0].name: main is the stream of all topics that no other has; set it up under streams.main, or choose another name`},
		{others("name: dead, filters: [a]"), `streams.others[0].name: dead is the name of a stream of the broker's own; choose another`},
		{others("name: control, filters: [a]"), `streams.others[0].name: control is the name of a stream of the broker's own; choose another`},
		{"streams: {dead: {retention_age: 1s}}", `streams.dead.retention_age is 1s; write at least 1m, or forever`},
		{"streams: {dead: {retention_bytes: 1KiB}}", `streams.dead.retention_bytes is 1KiB; write at least 1MiB, or unlimited`},
		{others("name: a, filters: [a]", "name: a, filters: [b]"), `streams.others[1].name: "a" is the name of streams.others[0] too; give each stream its own`},
		{others("name: a"), `streams.others[0] (a) has no filters; write the topics that it holds, such as filters: [a.>]`},
		{others("name: a, filters: [x, a..b]"), `streams.others[0].filters[1]: ` + badFilter("a..b")},
		{others("name: a, filters: [$x.>]"), `streams.others[0].filters[0]: "$x.>" begins with '$', and such topics belong to the broker; remove it`},
		{others("name: a, filters: [x, o.>]", "name: b, filters: [o.eu]"), `streams.others[1].filters[0]: all topics of "o.eu" belong to the stream a, which is listed before b and has the filter "o.>"; list b first, or remove the filter`},
		{others("name: a, filters: [a], storage: tape"), `streams.others[0].storage: "tape" is unknown; write disk or memory`},
		{others("name: a, filters: [a], retention_age: 1s"), `streams.others[0].retention_age is 1s; write at least 1m, or forever`},
		{others("name: a, filters: [a], retention_bytes: 0"), `streams.others[0].retention_bytes is 0; write at least 1MiB, or unlimited`},
		{others("name: a, filters: [a], dedupe_window: 0"), `streams.others[0].dedupe_window is 0; write a number of ids from 1000 to 100000000`},
		{others("name: a, filters: [a], retention_messages: 5"), `streams.others[0].retention_messages is 5, but messages are counted in memory alone; leave it out, or write storage: memory`},
		{others("name: a, filters: [a], storage: memory, retention_bytes: unlimited"), `streams.others[0].retention_bytes is unlimited; a stream in memory needs a bound, write a size from 1MiB to 64GiB`},
		{others("name: a, filters: [a], storage: memory, retention_messages: -1"), `streams.others[0].retention_messages is -1; write a number of messages, or 0 for no bound`},
		{others("name: a, filters: [a], storage: memory, max_messages_per_topic: -1"), `streams.others[0].max_messages_per_topic is -1; write a number of messages up to 1000000, or 0 for no bound`},
		{"streams: {main: {max_messages_per_topic: 1000001}}", `streams.main.max_messages_per_topic is 1000001; write a number of messages up to 1000000, or 0 for no bound`},
		{others("name: a, filters: [a], storage: memory, window_bytes: 1MiB"), `streams.others[0].segment_bytes and streams.others[0].window_bytes mean nothing for a stream in memory; leave them out, retention_bytes says how much it holds`},

		{others("name: soft, filters: [a]"), `streams.others[0].name: soft is the name of a stream of the broker's own; choose another`},

		{"kafka: {prefix: x}", `kafka has settings, but no brokers; write their addresses, such as brokers: [kafka-1:9092], or remove kafka`},
		{others("name: a, filters: [a], local: true"), `streams.others[0].local: without kafka.brokers every stream is on this machine alone; remove it`},
		{"kafka: {brokers: [kafka]}", `kafka.brokers[0]: "kafka" is not an address; write host:port, such as kafka-1:9092`},
		{"kafka: {brokers: ['kafka:0']}", `kafka.brokers[0]: "kafka:0" is not an address; write host:port, such as kafka-1:9092`},
		{kafka("prefix: 'a b'"), `kafka.prefix: "a b" is not a name that Kafka knows; write at most 100 of letters, digits, '-', '_' and '.'`},
		{kafka("prefix: '..'"), `kafka.prefix: ".." is not a name that Kafka knows; write at most 100 of letters, digits, '-', '_' and '.'`},
		{kafka("node: a/b"), `kafka.node: "a/b" is not a name that Kafka knows; write at most 100 of letters, digits, '-', '_' and '.'`},
		{kafka("replication: 0"), `kafka.replication is 0; write the number of copies from 1 to 10, 3 is usual`},
		{kafka("tls: {ca_file: x}"), `kafka.tls has settings, but is not enabled; write enabled: true, or remove them`},
		{kafka("tls: {enabled: true, cert_file: x}"), `kafka.tls.cert_file and kafka.tls.key_file belong together; set both or none`},
		{kafka("sasl: {user: x}"), `kafka.sasl has no mechanism; write scram-sha-512, scram-sha-256 or plain`},
		{kafka("sasl: {mechanism: gssapi}"), `kafka.sasl.mechanism: "gssapi" is unknown; write plain, scram-sha-256 or scram-sha-512`},
		{kafka("sasl: {mechanism: plain, user: x}"), `kafka.sasl needs user, and password or password_file; set them, or remove mechanism`},
		{kafka("sasl: {password: secret-secret, password_file: x}"), `kafka.sasl.password and kafka.sasl.password_file are both set; keep one of them`},
		{kafka("sasl: {password_file: " + plain + "x}"), `kafka.sasl.password_file: ` + plain + `x cannot be read: no such file or directory`},
		{"kafka: {in: [{name: a}]}", `kafka has settings, but no brokers; write their addresses, such as brokers: [kafka-1:9092], or remove kafka`},
		{kafka("in: [{topic: t, to: x}]"), `kafka.in[0] has no name; give it one, such as name: erp`},
		{kafka("in: [{name: a.b, topic: t, to: x}]"), `kafka.in[0].name: "a.b" is not the name of a connector; write one token of letters, digits, '-' and '_'`},
		{kafka("in: [{name: a, topic: t, to: x}], out: [{name: a}]"), `kafka.out[0].name: "a" is the name of kafka.in[0] too; give each its own`},
		{kafka("in: [{name: a}]"), `kafka.in[0].topic is missing; write the name of a topic in Kafka`},
		{kafka("in: [{name: a, topic: 'a b', to: x}]"), `kafka.in[0].topic: "a b" is not the name of a topic in Kafka; write at most 249 of letters, digits, '-', '_' and '.'`},
		{kafka("in: [{name: a, topic: tidewire.main, to: x}]"), `kafka.in[0].topic: "tidewire.main" begins with tidewire., as the cluster's own topics do; they are open to Kafka's clients without a connector, so write another topic`},
		{kafka("in: [{name: a, topic: t}]"), `kafka.in[0].to is missing; write the topics that the messages get, such as to: "orders.{key}"`},
		{kafka("in: [{name: a, topic: t, to: x, from: new}]"), `kafka.in[0].from: "new" is unknown; write earliest or latest`},
		{kafka("out: [{name: a, topic: t}]"), `kafka.out[0].filter is missing; write the topics whose messages it carries, such as filter: "orders.>"`},
		{kafka("out: [{name: a, topic: t, filter: '$control'}]"), `kafka.out[0].filter: "$control" begins with '$', and of the broker's own topics dead letters alone are carried; write one that $dead.> covers`},
		{kafka("out: [{name: a, topic: t, filter: a, stream: b}]"), `kafka.out[0].stream: there is no stream "b"; write one of dead, main`},
		{kafka("out: [{name: a, topic: t, filter: '>'}]") + "\nstreams: {others: [{name: a, filters: [a]}]}", `kafka.out[0] (a) has no stream, but its filter ">" could match topics of the streams a, main; write stream: and one of them`},
		{kafka("out: [{name: a, topic: t, filter: a}]") + "\nstreams: {others: [{name: a, filters: [a], local: true}]}", `kafka.out[0] (a) reads the stream a, which each node has for itself; only streams of the whole cluster are carried`},
		{kafka("out: [{name: a, topic: t, filter: a, key: ''}]"), `kafka.out[0].key is empty; write the template of the key, such as key: "{topic}"`},
		{kafka("in: [{name: b, topic: t, to: x}], out: [{name: a, topic: t, filter: a}]"), `kafka.out[0].topic: kafka.in[0] (b) reads "t" too, and messages could go round for ever; write another topic`},
		{kafka("out: [{name: a, topic: t, filter: a, from: latest}]"), `kafka.out[0].from: "latest" is unknown; write new or earliest`},
		{kafka("") + "\nstreams: {main: {partitions: 0}}", `streams.main.partitions is 0; write a number from 1 to 256`},
		{kafka("") + "\n" + others("name: a, filters: [a], storage: memory"), `streams.others[0] (a) is in memory, so each node of the cluster would have other messages; write local: true if that is wanted, or leave storage out`},

		{"limits: {publish_messages: 0}", `limits.publish_messages is 0; write a number from 1 to 100000`},
		{"limits: {history_messages: -1}", `limits.history_messages is -1; write a number from 1 to 10000`},
		{"limits: {in_flight: 0}", `limits.in_flight is 0; write a number from 1 to 1000000`},
		{"limits: {subscriptions: 0}", `limits.subscriptions is 0; write a number from 1 to 1000000`},
		{"limits: {connections: 0}", `limits.connections is 0; write a number from 1 to 10000000`},
		{"limits: {payload_bytes: 0}", `limits.payload_bytes is 0; write a size from 1 up, such as 256KiB`},
		{"limits: {frame_bytes: 17MiB}", `limits.frame_bytes is 17MiB; write at most 16MiB, since a client claims that much memory with a few bytes`},
		{"limits: {payload_bytes: 1MiB}", `limits.frame_bytes is 1MiB, but a payload of 1MiB (limits.payload_bytes) needs a frame of 1414488 bytes when it is sent as base64; raise the one or lower the other`},
		{"limits: {outbound_soft_bytes: 1KiB}", `limits.outbound_soft_bytes is 1KiB; write at least 64KiB, which is one chunk of deliveries`},
		{"limits: {outbound_hard_bytes: 1MiB}", `limits.outbound_hard_bytes is 1MiB; write at least 2MiB, which is outbound_soft_bytes and one frame`},

		{"ping: {interval: 1ms}", `ping.interval is 1ms; write a time span from 1s to 1h`},
		{"ping: {timeout: 2h}", `ping.timeout is 2h; write a time span from 1s to 1h`},
		{"timeouts: {connect: forever}", `timeouts.connect is forever; write a time span from 1s to 1h`},
		{"timeouts: {write: 0s}", `timeouts.write is 0s; write a time span from 1s to 1h`},
		{"shutdown: {drain: 2h}", `shutdown.drain is 2h; write a time span from 0s to 1h`},
		{"shutdown: {spread: 1d}", `shutdown.spread is 1d; write a time span from 0s to 1h`},
	} {
		_, err := config.Load(config.Source{File: file(t, r.given)})
		checkSentence(t, r.given, err, r.want)
		if err != nil && (strings.Contains(err.Error(), someKey) || strings.Contains(err.Error(), someSecret)) {
			t.Errorf("the sentence shows a secret: %v", err)
		}
	}
}

func TestWhatMakesSense(t *testing.T) {
	key := "auth: {api_keys: [{name: a, key: " + someKey + ", publish: ['u.{sub}.>', 'x-{sub}', '>']}]}\n"
	for _, text := range []string{
		"listen: 0.0.0.0:7070\n" + key,
		"admin: 10.0.0.1:7071\n" + key,
		"listen: '[::1]:0'\nadmin: '[::1]:0'",
		"listen: localhost:7070",
		"listen: 127.0.0.2:7070\nadmin: 127.0.0.3:7070",
		"auth: {anonymous: {subscribe: ['public.>']}}",
		"auth: {anonymous: {consume: ['public.>']}}",
		"auth: {cookie: session, jwt: {secret: " + someSecret + ", issuer: a, audience: b}}",
		"allowed_origins: ['*', 'null', 'http://localhost:5173']",
		"limits: {payload_bytes: 4MiB, frame_bytes: 16MiB, outbound_hard_bytes: 32MiB}",
		"shutdown: {drain: 0s, spread: 0s}",
		others("name: a, filters: [a.b]", "name: b-2, filters: [a.>, '*.b']", "name: m, filters: [m], storage: memory, retention_messages: 10, max_messages_per_topic: 1"),
		"streams: {main: {max_messages_per_topic: 1000000}}",
		kafka("prefix: push, node: n-1, replication: 1, tls: {enabled: true}, sasl: {mechanism: plain, user: a, password: b}"),
		kafka("") + "\n" + others("name: a, filters: [a], storage: memory, local: true", "name: b, filters: [b], partitions: 12"),
		"listen:\nlog:\n# nothing but comments\n",
		"---\ndata: x\n",
		"",
	} {
		if _, err := config.Load(config.Source{File: file(t, text)}); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}
