package storage
import ("testing";"time";"fmt";"path/filepath";"sync";"context")
func BenchmarkExp(b *testing.B) {
	l, stop := benchLog(b, filepath.Join(b.TempDir(),"l"), LogOptions{})
	write := l.committer.write
	var busy, gap time.Duration; var last time.Time
	commits, entries := 0, 0
	l.committer.write = func(t *batch) error {
		s := time.Now()
		if !last.IsZero() { gap += s.Sub(last) }
		err := write(t)
		last = time.Now()
		busy += last.Sub(s); commits++; entries += len(t.answers)
		return err
	}
	payload := make([]byte, 128)
	var all sync.WaitGroup
	start := time.Now()
	var pre [256][]*Entry
	for p := range 256 { for n := range 2000 { pre[p] = append(pre[p], benchEntry("topic", p<<32|n, payload)) } }
	start = time.Now()
	for p := range 256 {
		all.Go(func() {
			answer := make(chan Result, 1)
			for n := 0; n<2000; n++ {
				e := pre[p][n]
				e.Done = func(r Result) { answer <- r }
				l.Append(context.Background(), e)
				<-answer
			}
		})
	}
	all.Wait()
	took := time.Since(start)
	stop()
	fmt.Println("rate", float64(entries)/took.Seconds(), "entries/commit", entries/commits, "tx", busy/time.Duration(commits), "gap", gap/time.Duration(commits))
	for range b.N {}
}
