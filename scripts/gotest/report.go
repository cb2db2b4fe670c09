package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is one line of "go test -json"; see "go doc test2json".
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Output     string
}

// testID names one test; an empty name stands for the package itself.
type testID struct{ pkg, test string }

// report holds the output of tests until it is known whether they passed.
type report struct {
	out     io.Writer
	pending map[testID][]string
	failed  []failure
	skipped []skip
}

// failure is a test or a package that failed. Of a package whose process died,
// why says with which words, and while what was running.
type failure struct {
	id  testID
	why string
}

type skip struct {
	id     testID
	reason string
}

func newReport(out io.Writer) *report {
	return &report{out: out, pending: map[testID][]string{}}
}

// read consumes the events up to the end of the stream. A line that is no
// event is printed as it is.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				r.add(e)
			} else {
				r.print(line)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) add(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		r.print(e.Output)
	case "output":
		r.pending[id] = append(r.pending[id], e.Output)
	case "pass":
		r.close(id, false)
	case "fail":
		r.failed = append(r.failed, failure{id, r.death(id)})
		r.close(id, true)
	case "skip":
		if id.test != "" {
			r.skipped = append(r.skipped, skip{id, reason(r.pending[id])})
			delete(r.pending, id)
			return
		}
		r.close(id, false)
	}
}

// close prints what is left of a test or package that has ended: everything
// if it failed, else only the line of the package.
func (r *report) close(id testID, failed bool) {
	if failed && id.test == "" {
		r.printUnfinished(id.pkg)
	}
	for _, line := range r.pending[id] {
		if failed || (id.test == "" && strings.HasPrefix(line, "ok ")) {
			r.print(line)
		}
	}
	delete(r.pending, id)
}

// death returns with which words the process of a package died, and which tests
// had not ended; nothing if it ended as it should.
func (r *report) death(id testID) string {
	if id.test != "" {
		return ""
	}
	var running, words []string
	for _, of := range slices.SortedFunc(maps.Keys(r.pending), func(a, b testID) int { return strings.Compare(a.test, b.test) }) {
		if of.pkg != id.pkg {
			continue
		}
		if of.test != "" {
			running = append(running, of.test)
		}
		for _, line := range r.pending[of] {
			for _, sign := range []string{"panic: ", "fatal error: ", "unexpected fault", "[signal", "signal: ", "exit status", "WARNING: DATA RACE"} {
				if strings.HasPrefix(line, sign) {
					words = append(words, strings.TrimSpace(line))
				}
			}
		}
	}
	if len(running) > 0 {
		words = append(words, "while these ran: "+strings.Join(running, ", "))
	}
	return strings.Join(words, "; ")
}

// printUnfinished prints the tests that were running when the process of
// their package died: a panic, a timeout or os.Exit.
func (r *report) printUnfinished(pkg string) {
	ids := slices.SortedFunc(maps.Keys(r.pending), func(a, b testID) int {
		return strings.Compare(a.test, b.test)
	})
	for _, id := range ids {
		if id.pkg == pkg && id.test != "" {
			r.close(id, true)
		}
	}
}

// finish prints the lists at the end and tells whether all is well.
func (r *report) finish(skipFails bool) bool {
	if len(r.failed) > 0 {
		r.print("\nFailed:\n")
		for _, f := range r.failed {
			r.print("  " + strings.TrimRight(f.id.String()+" "+f.why, " ") + "\n")
		}
	}
	if len(r.skipped) == 0 {
		r.print("\nSkipped: none.\n")
		return len(r.failed) == 0
	}
	r.print("\nSkipped:\n")
	for _, s := range r.skipped {
		r.print("  " + s.id.String() + ": " + s.reason + "\n")
	}
	if skipFails {
		r.print("CI is set, and there every test must run: a skipped one is a failure.\n")
		return false
	}
	return len(r.failed) == 0
}

func (r *report) print(s string) {
	_, _ = fmt.Fprint(r.out, s)
}

func (id testID) String() string {
	if id.test == "" {
		return id.pkg
	}
	return id.pkg + " " + id.test
}

// reason is what the test printed, without the lines of the framework.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
