package config

import (
	"reflect"
	"strings"
)

// ParseForTest reads the text of a file as [Load] does.
func ParseForTest(text []byte) (*Config, error) {
	c := Default()
	return c, c.parse("tidewire.yaml", text)
}

// Paths lists the paths of all settings.
func Paths() []string { return paths() }

// DefaultOf returns the default of the setting at a path.
func DefaultOf(path string) reflect.Value {
	v := reflect.ValueOf(Default()).Elem()
	for part := range strings.SplitSeq(path, ".") {
		f, _ := find(fields(v), part)
		v = f.value
	}
	return v
}
