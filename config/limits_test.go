package config_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/protocol"
)

// The settings that bound clients, and the table of limits, are the same: who
// adds one to either has to add it to the other.
func TestLimitsAreThoseOfTheTable(t *testing.T) {
	notLimits := []string{"ping.interval"}
	settings := make(map[string]int64)
	for _, path := range config.Paths() {
		group, _, _ := strings.Cut(path, ".")
		if slices.Contains([]string{"limits", "timeouts", "ping"}, group) && !slices.Contains(notLimits, path) {
			settings[path] = config.DefaultOf(path).Convert(reflect.TypeFor[int64]()).Int()
		}
	}
	for _, info := range protocol.Limits() {
		if info.Key == "" {
			continue
		}
		value, ok := settings[info.Key]
		if !ok {
			t.Errorf("there is no setting %s of the limit %s", info.Key, info.Limit)
		}
		if value != info.Default {
			t.Errorf("the default of %s is %d, in the table %d", info.Key, value, info.Default)
		}
		delete(settings, info.Key)
	}
	for path := range settings {
		t.Errorf("the setting %s is not in the table of limits", path)
	}
}
