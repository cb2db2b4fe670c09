package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// Forever and Unlimited lift the bounds of retention.
const (
	Forever   Duration = -1
	Unlimited Size     = -1
)

const (
	foreverText   = "forever"
	unlimitedText = "unlimited"
)

// A Duration is a time span. It is written like Go's, and may begin with days:
// 25s, 1h30m, 7d, 1d12h.
type Duration time.Duration

// ParseDuration reads a time span. Negative ones and bare numbers other than 0
// are errors.
func ParseDuration(s string) (Duration, error) {
	if s == foreverText {
		return Forever, nil
	}
	bad := fmt.Errorf("%q is not a time span; write a number with its unit, such as 500ms, 25s, 10m, 168h or 7d", s)
	days, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || strings.HasPrefix(days, "+") {
		return 0, bad
	}
	var tail time.Duration
	if rest != "" || !hasDays {
		if tail, err = time.ParseDuration(rest); err != nil || strings.ContainsAny(rest, "+-") {
			return 0, bad
		}
	}
	if n > uint64((math.MaxInt64-tail)/day) {
		return 0, fmt.Errorf("%q is longer than 290 years; write %s to keep for ever", s, foreverText)
	}
	return Duration(time.Duration(n)*day + tail), nil
}

// String writes the time span so that [ParseDuration] reads it, in whole days
// if it is such, and else without parts that are 0.
func (d Duration) String() string {
	if d == Forever {
		return foreverText
	}
	t := time.Duration(d)
	if t > 0 && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalText reads what [ParseDuration] reads.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// MarshalYAML writes what [Duration.String] does.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// A Size is a number of bytes: 1048576, 1MiB, 1.5GiB, 10GB.
type Size int64

// units are the units of a [Size], the longest names first; the binary ones
// also are what String writes, from the largest to the smallest.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"kB", 1e3},
	{"B", 1},
}

// ParseSize reads a number of bytes. Negative numbers, and fractions that are
// not a whole number of bytes, are errors.
func ParseSize(s string) (Size, error) {
	if s == unlimitedText {
		return Unlimited, nil
	}
	number, unit := s, int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := parseNumber(number, unit)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size; write a number of bytes, or one with a unit, such as 256KiB, 64MiB or 10GiB", s)
	}
	return n, nil
}

var errNotSize = errors.New("not a size")

// parseNumber reads a decimal number, with a fraction if the unit is large
// enough, and multiplies it by unit without rounding.
func parseNumber(s string, unit int64) (Size, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || strings.HasPrefix(whole, "+") || (strings.Contains(s, ".") && fraction == "") {
		return 0, errNotSize
	}
	if n > uint64(math.MaxInt64/unit) {
		return 0, errNotSize
	}
	total := int64(n) * unit
	part, scale := int64(0), int64(1)
	for _, c := range fraction {
		if c < '0' || c > '9' || scale >= 1000 { // three digits are plenty
			return 0, errNotSize
		}
		part, scale = part*10+int64(c-'0'), scale*10
	}
	if part*unit%scale != 0 || part*unit/scale > math.MaxInt64-total {
		return 0, errNotSize
	}
	return Size(total + part*unit/scale), nil
}

// String writes the size with the largest unit that divides it.
func (s Size) String() string {
	if s == Unlimited {
		return unlimitedText
	}
	for _, u := range units[:4] {
		if s > 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText reads what [ParseSize] reads.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// MarshalYAML writes what [Size.String] does.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }
