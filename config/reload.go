package config

import (
	"reflect"
	"slices"
	"strings"
)

// reloadable are the settings that a running broker can change: single ones,
// and groups, which end in '.'.
var reloadable = []string{"allowed_origins", "allowed_hosts", "auth.", "consumers", "consumers.", "limits.", "ping.", "timeouts.", "shutdown.", "log.level"}

// Reloadable reports whether a running broker can change the setting at a path.
func Reloadable(path string) bool {
	return slices.ContainsFunc(reloadable, func(r string) bool {
		return path == r || (strings.HasSuffix(r, ".") && strings.HasPrefix(path, r))
	})
}

// Reload returns the settings of a broker that runs with c and is told that next
// is wanted: those that it can change are next's, the others stay c's. changed
// and kept are the paths of those in which the two differ.
//
// An error says why the settings make no sense together, although next does
// alone; nothing should change then.
func (c *Config) Reload(next *Config) (merged *Config, changed, kept []string, err error) {
	m := *c
	to, from := reflect.ValueOf(&m).Elem(), reflect.ValueOf(next).Elem()
	merge("", to, from, func(path string, to, from reflect.Value) {
		if !Reloadable(path) {
			kept = append(kept, path)
			return
		}
		changed = append(changed, path)
		to.Set(from)
	})
	return &m, changed, kept, m.Validate()
}

// merge calls differ for each setting in which the two structs differ; a list is
// one setting.
func merge(path string, to, from reflect.Value, differ func(path string, to, from reflect.Value)) {
	if to.Kind() == reflect.Struct {
		others := fields(from)
		for i, f := range fields(to) {
			merge(join(path, f.name), f.value, others[i].value, differ)
		}
		return
	}
	if !reflect.DeepEqual(to.Interface(), from.Interface()) {
		differ(path, to, from)
	}
}
