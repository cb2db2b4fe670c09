package judge

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// A Report is what the files of a run say.
type Report struct {
	Traffic Traffic
	Work    Work
	Faults  Faults
	Details []string // the first faults of each kind, for people
}

// Traffic counts what went on.
type Traffic struct {
	Published           int `figure:"published"` // messages that were sent at least once
	Repeats             int `figure:"sent again"`
	Answered            int `figure:"answered"`
	Duplicates          int `figure:"answered as duplicate"`
	Unanswered          int `figure:"never answered"`
	UnansweredDelivered int `figure:"never answered but delivered"`
	Receipts            int `figure:"delivered"`
	Subscriptions       int `figure:"subscriptions"`
	Reconnects          int `figure:"connections"`
	Gaps                int `figure:"gaps"`
	Holes               int `figure:"holes"`
	GoAways             int `figure:"told to go away"`
	CutShort            int `figure:"files without an end"` // the judge was killed or aborted
}

// Work counts what went on between the consumers and their members.
type Work struct {
	Sessions    int `figure:"sessions of members"`
	Lost        int `figure:"sessions that ended without a goodbye"`
	Receipts    int `figure:"delivered to members"`
	Redelivered int `figure:"delivered to members again"`
	Crossed     int `figure:"delivered to members while an answer was on its way"`
	Confirmed   int `figure:"acknowledgements confirmed"`
	NotPending  int `figure:"answered as settled before"`
	Fenced      int `figure:"answers that came too late for their generation"`
	Dead        int `figure:"dead letters"`
}

// Faults counts what must not be. Package judge says what each of them means.
type Faults struct {
	Lost            int `figure:"lost"`
	Doubled         int `figure:"doubled"`
	Reordered       int `figure:"reordered"`
	FalseGaps       int `figure:"false gaps"`
	Conflicts       int `figure:"conflicts"`
	WrongDuplicates int `figure:"wrong duplicates"`
	Refused         int `figure:"refused"`
	Damaged         int `figure:"damaged"`
	Foreign         int `figure:"foreign"`
	Stuck           int `figure:"stuck"`
	Forgotten       int `figure:"forgotten"`
	Undone          int `figure:"undone"`
	Attempts        int `figure:"wrong attempts"`
	Crowded         int `figure:"crowded keys"`
	Unfenced        int `figure:"not fenced"`
}

// Total is the number of faults.
func (f Faults) Total() int {
	total := 0
	for _, n := range figures(f) {
		total += n.value
	}
	return total
}

// Err returns nil if the run shows no fault, and shows anything at all: a run
// in which nothing was answered or delivered proves nothing.
func (r *Report) Err() error {
	switch {
	case r.Faults.Total() > 0:
		var b strings.Builder
		_ = r.Print(&b) // a Builder takes everything
		return fmt.Errorf("the judge found %d faults:\n%s", r.Faults.Total(), &b)
	case r.Traffic.Answered == 0:
		return errors.New("nothing was answered: the run proves nothing")
	case r.Traffic.Receipts == 0:
		return errors.New("nothing was delivered: the run proves nothing")
	case r.Work.Sessions > 0 && r.Work.Confirmed == 0:
		return errors.New("no acknowledgement was confirmed: the run proves nothing")
	}
	return nil
}

// Print writes one line for each figure, and then the details.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	for _, f := range figures(r.Traffic) {
		fmt.Fprintf(&b, "%9d %s\n", f.value, f.name)
	}
	if r.Work.Sessions > 0 {
		for _, f := range figures(r.Work) {
			fmt.Fprintf(&b, "%9d %s\n", f.value, f.name)
		}
	}
	for _, f := range figures(r.Faults) {
		mark := ""
		if f.value > 0 {
			mark = "  <-- FAULT"
		}
		fmt.Fprintf(&b, "%9d %s%s\n", f.value, f.name, mark)
	}
	for _, d := range r.Details {
		fmt.Fprintf(&b, "          %s\n", d)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

type figure struct {
	name  string
	value int
}

// figures reads a struct of counters, in its order.
func figures(counters any) []figure {
	v := reflect.ValueOf(counters)
	all := make([]figure, v.NumField())
	for i := range all {
		all[i] = figure{v.Type().Field(i).Tag.Get("figure"), int(v.Field(i).Int())}
	}
	return all
}

// detailsOfAKind is how many faults of one kind are spelled out.
const detailsOfAKind = 5

// fault counts one fault and spells out the first few of its kind.
func (r *Report) fault(counter *int, format string, args ...any) {
	if *counter++; *counter <= detailsOfAKind {
		r.Details = append(r.Details, fmt.Sprintf(format, args...))
	}
}
