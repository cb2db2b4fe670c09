package protocol

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestPositionRoundTrip(t *testing.T) {
	r := newRandom(t)
	positions := []Position{
		{Term: 1}, {Term: math.MaxUint64, Partition: math.MaxUint32, Offset: MaxOffset}, {Term: 35, Offset: 1}, {Term: 36, Partition: 1},
	}
	for range 2000 {
		positions = append(positions, randomPosition(r))
	}
	for _, p := range positions {
		s := p.String()
		got, err := ParsePosition(s)
		if err != nil || got != p {
			t.Fatalf("ParsePosition(%q) = %v, %v, want %v", s, got, err, p)
		}
		if len(s) > maxPositionBytes || s[0] != 'p' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Fatalf("%q has another form than is promised", s)
		}
		if start, err := ParseStart(s); err != nil || start.Kind != StartPosition || start.Position != p || start.String() != s {
			t.Fatalf("ParseStart(%q) = %v, %v", s, start, err)
		}
	}
	if s := positions[1].String(); len(s) != maxPositionBytes {
		t.Errorf("the longest position has %d bytes: %s", len(s), s)
	}
	if n := testing.AllocsPerRun(100, func() { _ = positions[1].String() }); n > 1 {
		t.Errorf("String allocates %v times", n)
	}
}

func TestParsePositionRefuses(t *testing.T) {
	for _, s := range []string{
		"", "p", "p-", "p1-", "p-1", "1z-42", "q1z-42", "P1z-42", "p1Z-42", "p01z-42", "p0-42", "p1z-042", "p1z-+42", "p1z--42",
		"p1z-42 ", " p1z-42", "p1z-42\n", "p1z-0_42", "p1z-03_42", "p1z-3_", "p1z-_42", "p1z-3_4_5", "p1z-4294967296_1",
		"p1z-9007199254740992", "p1z-18446744073709551616", "p3w5e11264sgsg-1", "p1z\x00-1", "p1z-1e3", "p1z-٣", "p1_z-3", "p1z_42",
		strings.Repeat("p", 1000), "p" + strings.Repeat("0", 1000) + "1-2", "p1-" + strings.Repeat("0", 1000) + "2",
	} {
		_, err := ParsePosition(s)
		wantError(t, err, CodeInvalidPosition, "", s)
		if strings.Contains(s, "--") {
			continue
		}
		wantError(t, err, CodeInvalidPosition, "give the `position` of a message", s)
	}
	_, err := ParsePosition("p1z-42-3_17")
	wantError(t, err, CodeInvalidPosition, "lists several partitions", "p1z-42-3_17")
	for _, s := range []string{"0", "1234", strings.Repeat("9", 100_000)} {
		_, err := ParsePosition(s)
		wantError(t, err, CodeOffsetNotPosition, "is an offset; give the `position`", s)
		_, err = ParseStart(s)
		wantError(t, err, CodeOffsetNotPosition, "is an offset; give the `position`", s)
	}
}

func TestTerm(t *testing.T) {
	a, b := NewTerm(), NewTerm()
	if a == 0 || a == b {
		t.Errorf("terms %v and %v", a, b)
	}
	if got, ok := ParseTerm(a.String()); !ok || got != a {
		t.Errorf("ParseTerm(%q) = %v, %v", a, got, ok)
	}
	for _, s := range []string{"", "01", "A", "-1", "+1", "1_0", "3w5e11264sgsg", " 1", "é"} {
		if _, ok := ParseTerm(s); ok {
			t.Errorf("ParseTerm(%q) takes it", s)
		}
	}
}

func TestStartRoundTrip(t *testing.T) {
	r := newRandom(t)
	starts := []Start{
		{},
		{Kind: StartEarliest},
		{Kind: StartLast, Last: 1},
		{Kind: StartLast, Last: MaxStartLast},
		{Kind: StartSince, Since: 1},
		{Kind: StartSince, Since: math.MaxInt64},
		{Kind: StartTime, Time: time.Time{}},
		{Kind: StartTime, Time: time.Unix(0, 0).UTC()},
		{Kind: StartTime, Time: time.UnixMicro(maxMicros).UTC()},
	}
	for range 500 {
		starts = append(starts,
			Start{Kind: StartLast, Last: 1 + r.IntN(MaxStartLast)},
			Start{Kind: StartSince, Since: time.Duration(1 + r.Int64N(math.MaxInt64-1))},
			Start{Kind: StartTime, Time: time.Unix(r.Int64N(maxMicros/1_000_000), r.Int64N(1e9)).UTC()},
			Start{Kind: StartPosition, Position: randomPosition(r)})
	}
	for _, s := range starts {
		if got, err := ParseStart(s.String()); err != nil || got != s {
			t.Fatalf("ParseStart(%q) = %v, %v, want %v", s, got, err, s)
		}
	}
}

func TestParseStart(t *testing.T) {
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for s, want := range map[string]Start{
		"": {}, "new": {}, "earliest": {Kind: StartEarliest}, "last:7": {Kind: StartLast, Last: 7},
		"-10m": {Kind: StartSince, Since: 10 * time.Minute}, "-1h30m": {Kind: StartSince, Since: 90 * time.Minute},
		"2026-01-02T15:04:05Z":      {Kind: StartTime, Time: at},
		"2026-01-02T15:04:05.5Z":    {Kind: StartTime, Time: at.Add(500 * time.Millisecond)},
		"2026-01-02T16:04:05+01:00": {Kind: StartTime, Time: at},
		"p1z141z3-42":               {Kind: StartPosition, Position: Position{Term: 4294967295, Offset: 42}},
		"p1z141z3-3_42":             {Kind: StartPosition, Position: Position{Term: 4294967295, Partition: 3, Offset: 42}},
	} {
		got, err := ParseStart(s)
		if err != nil || got != want {
			t.Errorf("ParseStart(%q) = %+v, %v, want %+v", s, got, err, want)
		}
	}
	for s, says := range map[string]string{
		"last:0": "from 1 to 1000000", "last:": "from 1 to", "last:1000001": "from 1 to", "last:-1": "from 1 to", "last:+5": "from 1 to",
		"last:05": "from 1 to", "last:5 ": "from 1 to", "last:99999999999999999999": "from 1 to",
		"-": "-10m or -1h30m", "-0s": "-10m", "-10": "-10m", "--10m": "-10m", "-10y": "-10m",
		"-2562047h47m16.854775808s": "-10m", "-9223372036854775808ns": "-10m", "-99999999999h": "-10m",
		"10m": "use new, earliest", "New": "use new", " new": "use new", "2026-01-02": "use new", "2026-01-02 15:04:05": "use new",
		"2026-01-02T15:04:05": "use new", "2026-01-02T15:04:05,5Z": "use new", "2026-01-02T5:04:05Z": "use new", "2026-13-02T15:04:05Z": "use new",
		"\x00": "use new", "\xff": "use new", strings.Repeat("x", 100_000): "use new", "2026-01-02T15:04:05." + strings.Repeat("0", 100_000) + "Z": "use new",
	} {
		got, err := ParseStart(s)
		wantError(t, err, CodeInvalidStart, says, s)
		if got != (Start{}) {
			t.Errorf("ParseStart(%q) refuses, but returns %+v", s, got)
		}
	}
	got, err := ParseStart("past")
	wantError(t, err, CodeInvalidPosition, "is not a position", "past")
	if got != (Start{}) {
		t.Errorf("a refused position gives %+v", got)
	}
}
