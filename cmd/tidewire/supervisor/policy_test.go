package supervisor

import (
	"testing"
	"time"
)

// deaths are told as (seconds since the one before, was it ready, want seconds);
// want is -1 where it gives up.
func TestPolicy(t *testing.T) {
	type death struct {
		after int
		ready bool
		want  int
	}
	for name, deaths := range map[string][]death{
		"the first start fails":   {{0, false, -1}},
		"killed now and then":     {{0, true, 0}, {20, true, 0}, {20, true, 0}, {20, true, 0}, {20, true, 0}, {20, true, 0}, {20, true, 0}, {20, true, 0}},
		"dies again and again":    {{0, true, 0}, {0, true, 0}, {0, true, 0}, {0, true, 0}, {0, true, 0}, {1, true, 1}, {1, true, 2}, {2, true, 4}, {4, true, 8}, {8, true, 10}, {10, true, 10}, {60, true, 0}},
		"cannot be started again": {{0, true, 0}, {0, false, 1}, {1, false, 2}, {2, false, 4}, {4, false, 8}, {8, false, -1}},
		"started at the last":     {{0, true, 0}, {0, false, 1}, {1, false, 2}, {2, false, 4}, {4, false, 8}, {90, true, 0}, {0, false, 1}},
	} {
		var p policy
		now := time.Now()
		for i, d := range deaths {
			now = now.Add(time.Duration(d.after) * time.Second)
			pause, again := p.died(now, d.ready)
			if again != (d.want >= 0) || (again && pause != time.Duration(d.want)*time.Second) {
				t.Errorf("%s, death %d: %v, %v, want %d s", name, i, pause, again, d.want)
			}
		}
	}
}
