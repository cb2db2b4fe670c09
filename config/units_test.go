package config_test

import (
	"testing"
	"time"

	"github.com/tidewire/tidewire/config"
)

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 168 * time.Hour, "168h": 168 * time.Hour, "1d12h": 36 * time.Hour, "0d": 0, "0": 0, "1h30m": 90 * time.Minute,
		"250ms": 250 * time.Millisecond, "1.5s": 1500 * time.Millisecond, "forever": -1,
	} {
		if got, err := config.ParseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "7", "d", "-1d", "+1d", "1d-2h", "-5s", "7 d", "1d2", "1.5d", "200000d", "4294967296d", "1h1d", "days"} {
		if got, err := config.ParseDuration(text); err == nil {
			t.Errorf("%q is accepted as %v", text, got)
		}
	}
	for want, d := range map[string]time.Duration{"7d": 168 * time.Hour, "36h": 36 * time.Hour, "10m": 10 * time.Minute, "1h0m5s": time.Hour + 5*time.Second, "25s": 25 * time.Second, "0s": 0, "forever": -1} {
		if got := config.Duration(d).String(); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]config.Size{
		"0": 0, "1048576": 1 << 20, "1MiB": 1 << 20, "10GiB": 10 << 30, "1.5KiB": 1536, "10 GB": 10e9, "5kB": 5000, "7B": 7, "0.5TiB": 1 << 39,
		"unlimited": -1, "9223372036854775807": 1<<63 - 1,
	} {
		if got, err := config.ParseSize(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "B", "MiB", "-1", "+1", "1.", ".5KiB", "1.5", "1.2345MiB", "1e3", "10G", "1mib", "8388608TiB", "9223372036854775808", "1MiB1"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("%q is accepted as %d", text, got)
		}
	}
}

func FuzzUnits(f *testing.F) {
	for _, s := range []string{"7d", "1d12h", "25s", "1.5GiB", "10 GB", "9223372036854775807", "106751d23h47m16.854775807s", "forever"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := config.ParseDuration(s); err == nil {
			if d < 0 && d != config.Forever {
				t.Fatalf("%q is %d", s, d)
			}
			if again, err := config.ParseDuration(d.String()); err != nil || again != d {
				t.Fatalf("%q is %v, which is read as %v (%v)", s, d, again, err)
			}
		}
		if n, err := config.ParseSize(s); err == nil {
			if n < 0 && n != config.Unlimited {
				t.Fatalf("%q is %d", s, n)
			}
			if again, err := config.ParseSize(n.String()); err != nil || again != n {
				t.Fatalf("%q is %v, which is read as %v (%v)", s, n, again, err)
			}
		}
	})
}

// Whatever a file holds, it is read or refused with one sentence.
func FuzzFile(f *testing.F) {
	for _, s := range []string{"listen: a", "auth:\n  api_keys:\n    - name: a\n", "limits: {in_flight: 3}", "- a", "a: &x b", "? a\n: b", "? [a]\n: b", "!!str a: b", "a: |\n  x\n", "\t", "{", "auth: {jwt: {secret: >\n x}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 4096 {
			return
		}
		_, err := config.ParseForTest([]byte(s))
		if err != nil && err.Error() == "" {
			t.Fatal("an empty sentence")
		}
	})
}
