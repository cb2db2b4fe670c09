package broker_test

import (
	"fmt"
	"runtime"
	"testing"
)

// TestIdleConsumers: a consumer for which there is nothing to do costs no goroutine,
// no timer and little memory.
func TestIdleConsumers(t *testing.T) {
	const n, most = 10_000, 2048
	s := openShop(t, "")
	measure := func() (bytes uint64, goroutines int) {
		runtime.GC()
		runtime.GC() // what the first one has found is swept
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	bytes, goroutines := measure()
	for i := range n {
		if _, _, err := s.broker.PutConsumer(t.Context(), fmt.Sprintf("idle%d", i), request(fmt.Sprintf("job.%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	bytesNow, goroutinesNow := measure()
	if each := (bytesNow - bytes) / n; each > most || goroutinesNow > goroutines+10 {
		t.Errorf("%d bytes each, at most %d are allowed; %d goroutines more", each, most, goroutinesNow-goroutines)
	}
}
