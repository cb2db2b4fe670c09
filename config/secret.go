package config

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret never shows itself: however it is printed, logged or encoded, it is
// "(set)", or nothing if it is empty. [Secret.Reveal] returns it.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "(set)" if there is a secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(set)"
}

// Format covers every verb, %x and %#v too.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue keeps the secret out of log lines.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps the secret out of JSON and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML keeps the secret out of YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }
