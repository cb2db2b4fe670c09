package config_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/config"
)

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Source{File: file(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReload(t *testing.T) {
	before := load(t, "data: one\nlog: {level: info, format: text}\nlimits: {in_flight: 5}\nauth: {jwt: {secret: "+someSecret+"}}\n")
	next := load(t, "data: two\nlog: {level: warn, format: json}\nlimits: {in_flight: 6}\nstreams: {main: {retention_age: 1d}}\nauth: {api_keys: [{name: a, key: "+someKey+"}]}\n")
	copied := *before
	merged, changed, kept, err := before.Reload(next)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"auth.api_keys", "auth.jwt.secret", "limits.in_flight", "log.level"}; !slices.Equal(changed, want) {
		t.Errorf("changed: %v, want %v", changed, want)
	}
	if want := []string{"data", "streams.main.retention_age", "log.format"}; !slices.Equal(kept, want) {
		t.Errorf("kept: %v, want %v", kept, want)
	}
	if merged.Data != "one" || merged.Limits.InFlight != 6 || merged.Log != (config.Log{Level: "warn", Format: "text"}) || merged.Auth.JWT.Secret != "" || len(merged.Auth.APIKeys) != 1 {
		t.Errorf("merged: %+v", merged)
	}
	if !reflect.DeepEqual(*before, copied) {
		t.Error("the settings in effect were written to")
	}
	if _, changed, kept, err := merged.Reload(merged); err != nil || len(changed)+len(kept) != 0 {
		t.Errorf("with itself: %v, %v, %v", changed, kept, err)
	}
}

// What makes sense alone may not do so together with what cannot change.
func TestReloadChecksTheWhole(t *testing.T) {
	open := load(t, "listen: 0.0.0.0:7070\nauth: {jwt: {secret: "+someSecret+"}}\n")
	next := load(t, "listen: 127.0.0.1:7070\n")
	if _, _, _, err := open.Reload(next); err == nil || !strings.Contains(err.Error(), "nothing says who may do what") {
		t.Errorf("a broker that others can reach went without authentication: %v", err)
	}
}

// Every setting is either known to change in a running broker or known not to.
func TestReloadableSettings(t *testing.T) {
	fixed := []string{"data", "listen", "admin", "dev", "streams.", "kafka.", "log.format"}
	for _, path := range config.Paths() {
		isFixed := slices.ContainsFunc(fixed, func(f string) bool { return path == f || strings.HasSuffix(f, ".") && strings.HasPrefix(path, f) })
		if isFixed == config.Reloadable(path) {
			t.Errorf("%s: reloadable %v; say which in reload.go and here", path, config.Reloadable(path))
		}
	}
}
