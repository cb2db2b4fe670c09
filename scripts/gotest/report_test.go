package main

import (
	"strings"
	"testing"
)

// stream is what "go test -json" prints for a passing, a failing and a
// skipped test, a package that panics and one that does not compile.
const stream = `{"Action":"start","Package":"a"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"noise of a passing test\n"}
{"Action":"pass","Package":"a","Test":"TestGood"}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"=== RUN   TestSkipped\n"}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"    a_test.go:7: strace is missing\n"}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"--- SKIP: TestSkipped (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestSkipped"}
{"Action":"output","Package":"a","Output":"PASS\n"}
{"Action":"output","Package":"a","Output":"ok  \ta\t0.010s\n"}
{"Action":"pass","Package":"a"}
{"Action":"output","Package":"none","Output":"?   \tnone\t[no test files]\n"}
{"Action":"skip","Package":"none"}
`

const failing = `{"Action":"output","Package":"b","Test":"TestBad","Output":"    b_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"b","Test":"TestBad"}
{"Action":"output","Package":"b","Output":"FAIL\tb\t0.010s\n"}
{"Action":"fail","Package":"b"}
{"Action":"output","Package":"c","Test":"TestPanics","Output":"panic: out of range\n"}
{"Action":"output","Package":"c","Output":"FAIL\tc\t0.010s\n"}
{"Action":"fail","Package":"c"}
{"ImportPath":"d","Action":"build-output","Output":"d.go:1:1: expected 'package'\n"}
go: a line that is no event
`

func reportOf(t *testing.T, in string, skipFails bool) (text string, ok bool) {
	t.Helper()
	var out strings.Builder
	rep := newReport(&out)
	if err := rep.read(strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	ok = rep.finish(skipFails)
	return out.String(), ok
}

func TestPassingTestsAreQuiet(t *testing.T) {
	got, ok := reportOf(t, stream, false)
	want := "ok  \ta\t0.010s\n\nSkipped:\n  a TestSkipped: a_test.go:7: strace is missing\n"
	if !ok || got != want {
		t.Errorf("ok %v, printed:\n%s\nwant:\n%s", ok, got, want)
	}
}

func TestSkippedFailsWhereEveryTestMustRun(t *testing.T) {
	if _, ok := reportOf(t, stream, true); ok {
		t.Error("a skipped test was let through")
	}
	if got, ok := reportOf(t, "", true); !ok {
		t.Errorf("nothing was skipped, and it failed:\n%s", got)
	}
}

func TestFailuresAreShown(t *testing.T) {
	got, ok := reportOf(t, stream+failing, false)
	if ok {
		t.Error("a failure was let through")
	}
	for _, want := range []string{
		"b_test.go:3: got 1, want 2",
		"panic: out of range",
		"d.go:1:1: expected 'package'",
		"go: a line that is no event",
		"Failed:\n  b TestBad\n  b\n  c panic: out of range; while these ran: TestPanics\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "noise of a passing test") {
		t.Errorf("the output of a passing test was printed:\n%s", got)
	}
}
