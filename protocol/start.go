package protocol

import (
	"strconv"
	"strings"
	"time"
)

// StartKind tells the kinds of [Start] apart.
type StartKind uint8

// The kinds of start.
const (
	StartNew          StartKind = iota // whatever is stored from now on
	StartEarliest                      // everything that is stored
	StartLast                          // the newest N messages that match
	StartSince                         // a duration before now
	StartTime                          // a moment
	StartPosition                      // after a position
	StartLastPerTopic                  // the newest message of each topic that matches
)

// MaxStartLast is the largest N of `last:N`.
const MaxStartLast = 1_000_000

// A Start says where a subscription begins. One grammar serves the command
// line, HTTP and the SDKs, see [ParseStart]. The zero Start is `new`.
type Start struct {
	Kind     StartKind
	Last     int           // of StartLast
	Since    time.Duration // of StartSince, above 0
	Time     time.Time     // of StartTime
	Position Position      // of StartPosition, if it is a single place
	Several  *Vector       // of StartPosition, if it lists several partitions
}

// ParseStart reads `new` or nothing, `earliest`, `last:N`, `last-per-topic`, a
// duration before now such as `-10m`, an RFC 3339 time, or a position. Errors have the code
// invalid_start, invalid_position or offset_not_position.
func ParseStart(s string) (Start, error) {
	switch {
	case s == "" || s == "new":
		return Start{}, nil
	case s == "last-per-topic":
		return Start{Kind: StartLastPerTopic}, nil
	case s == "earliest":
		return Start{Kind: StartEarliest}, nil
	case strings.HasPrefix(s, "last:"):
		n, err := strconv.Atoi(s[len("last:"):])
		if err != nil || n < 1 || n > MaxStartLast || strconv.Itoa(n) != s[len("last:"):] {
			e := Errorf(CodeInvalidStart, "%s is no start: N of last:N is a number from 1 to %d", quote(s), MaxStartLast)
			if err == nil && n > MaxStartLast {
				e = e.of(LimitStart)
			}
			return Start{}, e
		}
		return Start{Kind: StartLast, Last: n}, nil
	case s[0] == '-':
		d, err := time.ParseDuration(s)
		if err != nil || d >= 0 || -d < 0 { // the smallest duration has no opposite
			return Start{}, Errorf(CodeInvalidStart, "%s is no start: a duration before now looks like -10m or -1h30m", quote(s))
		}
		return Start{Kind: StartSince, Since: -d}, nil
	case s[0] == 'p' || isDigits(s):
		v, err := ParseVector(s)
		if err != nil {
			return Start{}, err
		}
		if len(v.Places) > 1 {
			return Start{Kind: StartPosition, Several: &v}, nil
		}
		return Start{Kind: StartPosition, Position: v.position(0)}, nil
	}
	t, ok := parseTime(s)
	if !ok {
		return Start{}, Errorf(CodeInvalidStart, "%s is no start: use new, earliest, last:N, last-per-topic, a duration such as -10m, a time such as 2026-01-02T15:04:05Z, or a position", quote(s))
	}
	return Start{Kind: StartTime, Time: t}, nil
}

// parseTime reads an RFC 3339 time. time.Parse takes more, a comma for the point
// and hours of one digit, which other readers of our texts would refuse.
func parseTime(s string) (time.Time, bool) {
	const shortest, longest = len("2026-01-02T15:04:05Z"), len("2026-01-02T15:04:05.000000000+00:00")
	if len(s) < shortest || len(s) > longest || s[len("2026-01-02T15")] != ':' || strings.Contains(s, ",") {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, s)
	return t.UTC(), err == nil
}

// Vector returns the places of StartPosition.
func (s Start) Vector() Vector {
	if s.Several != nil {
		return *s.Several
	}
	return s.Position.Vector()
}

// String writes the start so that [ParseStart] reads it.
func (s Start) String() string {
	switch s.Kind {
	case StartEarliest:
		return "earliest"
	case StartLast:
		return "last:" + strconv.Itoa(s.Last)
	case StartSince:
		return "-" + s.Since.String()
	case StartTime:
		return s.Time.Format(time.RFC3339Nano)
	case StartPosition:
		return s.Vector().String()
	case StartLastPerTopic:
		return "last-per-topic"
	default:
		return "new"
	}
}
