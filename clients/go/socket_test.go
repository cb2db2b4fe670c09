package tidewire

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A write that fails does not close the connection: the reader may still find why
// the broker closes it. But it does not wait for that for long.
func TestFailedWriteLeavesTheVerdictToBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		var failure error
		s := &socket{Conn: near, raw: near, failed: func(err error) { failure = err }}
		s.silence.Store(int64(time.Hour))
		start := time.Now()
		if n, err := s.Write([]byte("nobody reads this")); n != 17 || err != nil {
			t.Fatal(n, err)
		}
		if d := time.Since(start); d != writeTimeout {
			t.Fatalf("the write gave up after %v", d)
		}
		go func() { _, _ = far.Write([]byte("why")) }()
		b := make([]byte, 10)
		if n, err := s.Read(b); string(b[:n]) != "why" || err != nil {
			t.Fatal(n, err)
		}
		if n, err := s.Write([]byte("more")); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		start = time.Now()
		if _, err := s.Read(b); err == nil || failure == nil || time.Since(start) != byeTimeout {
			t.Fatal(err, failure, time.Since(start))
		}
	})
}
