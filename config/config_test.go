package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/config"
)

const (
	someKey    = "twk_key9x8w7v6u5t4s3r2q1p0"
	someSecret = "jwt9x8w7v6u5t4s3r2q1p0o9n8m7l6k5j4"
	someHash   = "d1ceb1ece1ab1ed1ceb1ece1ab1ed1ceb1ece1ab1ed1ceb1ece1ab1ed1ceb1ec"
)

// file writes a configuration file and returns its path.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tidewire.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDefaultsAreValid(t *testing.T) {
	c, err := config.Load(config.Source{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:7070" || c.Admin != "127.0.0.1:7071" || c.Data != "./tidewire-data" {
		t.Errorf("defaults: %+v", c)
	}
	if read := []string{">", "$dead.>"}; !reflect.DeepEqual(c.Auth.Anonymous, config.Anonymous{Publish: []string{">"}, Subscribe: read, Consume: read}) {
		t.Errorf("without authentication anonymous may %+v", c.Auth.Anonymous)
	}
}

func TestPrecedence(t *testing.T) {
	name := file(t, "listen: 127.0.0.1:1\nadmin: 127.0.0.1:2\ndata: from-file\nlog: {level: warn}\nlimits:\n  in_flight: 7\n")
	environment := []string{"TIDEWIRE_ADMIN=127.0.0.1:3", "TIDEWIRE_DATA=from-env", "TIDEWIRE_LIMITS_IN_FLIGHT=", "PATH=/bin"}
	c, err := config.Load(config.Source{File: name, Environment: environment, Flags: func(c *config.Config) { c.Data = "from-flag" }})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Listen, c.Admin, c.Data, c.Log.Level, c.Log.Format, c.Limits.InFlight, c.Limits.Subscriptions}
	want := []any{"127.0.0.1:1", "127.0.0.1:3", "from-flag", "warn", "text", 7, 1000}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFileFromEnvironment(t *testing.T) {
	name, other := file(t, "data: one\n"), file(t, "data: two\n")
	environment := []string{"TIDEWIRE_CONFIG=" + name}
	for want, source := range map[string]config.Source{
		"one": {Environment: environment},
		"two": {Environment: environment, File: other},
	} {
		if c, err := config.Load(source); err != nil || c.Data != want {
			t.Errorf("data %v, %v; want %s", c, err, want)
		}
	}
}

func TestEverySettingHasAVariable(t *testing.T) {
	environment := []string{
		"TIDEWIRE_DEV=true",
		"TIDEWIRE_ALLOWED_ORIGINS=https://a.example, https://b.example:8443",
		"TIDEWIRE_AUTH_API_KEYS_0_KEY=" + someKey, // the file has its name
		"TIDEWIRE_AUTH_API_KEYS_1_NAME=second",
		"TIDEWIRE_AUTH_API_KEYS_1_SHA256=" + someHash,
		"TIDEWIRE_AUTH_API_KEYS_1_PUBLISH=a.>,b.{sub}",
		"TIDEWIRE_STREAMS_MAIN_RETENTION_AGE=forever",
		"TIDEWIRE_STREAMS_MAIN_RETENTION_BYTES=unlimited",
		"TIDEWIRE_LIMITS_CONNECTIONS=5",
		"TIDEWIRE_PING_INTERVAL=1m30s",
	}
	c, err := config.Load(config.Source{File: file(t, "auth:\n  api_keys:\n    - name: first\n"), Environment: environment})
	if err != nil {
		t.Fatal(err)
	}
	keys := c.Auth.APIKeys
	if len(keys) != 2 || keys[0].Name != "first" || keys[0].Key.Reveal() != someKey || keys[1].Name != "second" || keys[1].SHA256.Reveal() != someHash {
		t.Errorf("API keys: %+v", keys)
	}
	got := []any{c.Dev, c.AllowedOrigins, keys[1].Publish, c.Streams.Main.RetentionAge, c.Streams.Main.RetentionBytes, c.Limits.Connections, time.Duration(c.Ping.Interval)}
	want := []any{true, []string{"https://a.example", "https://b.example:8443"}, []string{"a.>", "b.{sub}"}, config.Forever, config.Unlimited, 5, 90 * time.Second}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if c.Auth.Anonymous.Said() {
		t.Errorf("with authentication anonymous may %+v", c.Auth.Anonymous)
	}
}

func TestForeignVariablesAreAccepted(t *testing.T) {
	for _, v := range []string{
		"TIDEWIRE_SERVER=http://localhost:7070", "TIDEWIRE_TOKEN=x", "TIDEWIRE_MSG_ID=x", "TIDEWIRE_SOAK=1m",
		"TIDEWIRE_SERVICE_HOST=10.0.0.1", "TIDEWIRE_SERVICE_PORT_HTTP=7070", "TIDEWIRE_PORT=tcp://10.0.0.1:7070",
		"TIDEWIRE_PORT_7070_TCP_ADDR=10.0.0.1", "TIDEWIRE_ADMIN_SERVICE_HOST=10.0.0.1", "TIDEWIRE_ADMIN_PORT=tcp://10.0.0.1:7071",
	} {
		if _, err := config.Load(config.Source{Environment: []string{v}}); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
}

func TestSecretFile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(someSecret+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Source{Environment: []string{"TIDEWIRE_AUTH_JWT_SECRET_FILE=" + secret}})
	if err != nil || c.Auth.JWT.Secret.Reveal() != someSecret {
		t.Fatalf("secret %q, %v", c.Auth.JWT.Secret.Reveal(), err)
	}
}

// What is not said of a stream has a default, which for its size depends on where
// it is kept.
func TestStreamDefaults(t *testing.T) {
	c, err := config.Load(config.Source{
		File:        file(t, "streams: {others: [{name: a, filters: [a], retention_age: 1d}, {name: b, filters: [b], storage: memory}]}\n"),
		Environment: []string{"TIDEWIRE_STREAMS_OTHERS_1_FILTERS=b,c.>", "TIDEWIRE_STREAMS_OTHERS_2_NAME=d", "TIDEWIRE_STREAMS_OTHERS_2_FILTERS=d", "TIDEWIRE_STREAMS_OTHERS_2_RETENTION_BYTES=1GiB"},
	})
	if err != nil {
		t.Fatal(err)
	}
	main := c.Streams.Main
	aged, small, large := main, main, main
	aged.RetentionAge = config.Duration(24 * time.Hour)
	small.RetentionBytes, large.RetentionBytes = 64<<20, 1<<30
	want := []config.OtherStream{
		{Name: "a", Filters: []string{"a"}, Storage: "disk", Stream: aged},
		{Name: "b", Filters: []string{"b", "c.>"}, Storage: "memory", Stream: small},
		{Name: "d", Filters: []string{"d"}, Storage: "disk", Stream: large},
	}
	if !reflect.DeepEqual(c.Streams.Others, want) {
		t.Errorf("got %+v\nwant %+v", c.Streams.Others, want)
	}
	dead := main // of the dead letters, which are kept for longer, in smaller files
	dead.RetentionAge, dead.SegmentBytes = config.Duration(30*24*time.Hour), 16<<20
	if c.Streams.Dead != dead {
		t.Errorf("streams.dead: %+v, want %+v", c.Streams.Dead, dead)
	}
	dead.RetentionAge = config.Duration(24 * time.Hour)
	if c := load(t, "streams: {dead: {retention_age: 1d}}\n"); c.Streams.Dead != dead || c.Streams.Main != main {
		t.Errorf("with another age streams.dead: %+v", c.Streams.Dead)
	}
}

// What is printed can be read again, and says the same.
func TestPrintedIsRead(t *testing.T) {
	c, err := config.Load(config.Source{
		File:        file(t, "streams: {main: {retention_age: 36h, retention_bytes: unlimited, segment_bytes: 3000001}, others: [{name: a, filters: ['a.>']}, {name: b, filters: [b], storage: memory, retention_bytes: 2MiB}]}\nallowed_hosts: [a.example]\n"),
		Environment: []string{"TIDEWIRE_LOG_FORMAT=json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Load(config.Source{File: file(t, string(text))})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	twice, err := again.YAML()
	if err != nil || string(twice) != string(text) {
		t.Errorf("printed again it is (%v)\n%s\ninstead of\n%s", err, twice, text)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	c, err := config.Load(config.Source{Environment: []string{
		"TIDEWIRE_AUTH_JWT_SECRET=" + someSecret,
		"TIDEWIRE_AUTH_API_KEYS_0_NAME=a", "TIDEWIRE_AUTH_API_KEYS_0_KEY=" + someKey,
		"TIDEWIRE_AUTH_API_KEYS_1_NAME=b", "TIDEWIRE_AUTH_API_KEYS_1_SHA256=" + someHash,
	}})
	if err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	text, err := c.YAML()
	if err != nil || strings.Count(string(text), "(set)") != 3 {
		t.Errorf("YAML (%v):\n%s", err, text)
	}
	printed.Write(text)
	object, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	printed.Write(object)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&printed, verb, c.Auth)
		fmt.Fprintf(&printed, verb, c.Auth.JWT.Secret)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&printed, nil), slog.NewJSONHandler(&printed, nil)} {
		slog.New(h).Info("start", "config", c, "auth", c.Auth, "secret", c.Auth.JWT.Secret)
	}
	for _, secret := range []string{someSecret, someKey, someHash} {
		for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret)} {
			if strings.Contains(printed.String(), form) {
				t.Errorf("%s is in\n%s", form, printed.String())
			}
		}
	}
}
