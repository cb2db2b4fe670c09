package main

import (
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
)

// rounds is how often the two sides of a row take turns.
const rounds = 5

// sample is the outcomes of one side, in seconds or as a ratio.
type sample []float64

func (s sample) median() float64 { return slices.Sorted(slices.Values(s))[len(s)/2] }

func (s sample) text(unit string) string {
	return fmt.Sprintf("%.3g %s (%.3g-%.3g)", s.median(), unit, slices.Min(s), slices.Max(s))
}

// row is one line of the table.
type row struct {
	name  string
	ours  string
	limit string
	ratio sample
	aim   float64 // 0 if the row is there to compare with
	least bool    // the ratio should be the aim at least, not at most
}

func (r *row) met() bool {
	if r.aim == 0 {
		return true
	}
	if r.least {
		return r.ratio.median() >= r.aim
	}
	return r.ratio.median() <= r.aim
}

// compare lets two sides take turns. The ratio is ours to the limit's in each
// turn.
func compare(name string, aim float64, ours, limit func() (float64, error)) (*row, error) {
	var a, b, ratio sample
	for turn := range rounds + 1 {
		x, err := ours()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		y, err := limit()
		if err != nil {
			return nil, fmt.Errorf("%s, the limit: %w", name, err)
		}
		if turn > 0 { // the first one warms up
			a, b, ratio = append(a, x), append(b, y), append(ratio, x/y)
		}
	}
	return &row{name: name, ours: a.text("s"), limit: b.text("s"), ratio: ratio, aim: aim}, nil
}

// compareRates is compare without an aim, where both sides do the same work: the
// ratio is that of their rates.
func compareRates(name string, ours, limit func() (float64, error)) (*row, error) {
	r, err := compare(name, 0, ours, limit)
	if err != nil {
		return nil, err
	}
	for i := range r.ratio {
		r.ratio[i] = 1 / r.ratio[i]
	}
	return r, nil
}

// printTable returns whether all aims were met.
func printTable(rows []*row) bool {
	all := true
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "WHAT\tOURS\tLIMIT\tRATIO\tAIM\t")
	for _, r := range rows {
		sign, verdict := "<=", "ok"
		if r.least {
			sign = ">="
		}
		if !r.met() {
			verdict, all = "MISSED", false
		}
		aim := fmt.Sprint(sign, " ", r.aim)
		if r.aim == 0 {
			aim, verdict = "", ""
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.name, r.ours, r.limit, r.ratio.text(""), aim, verdict)
	}
	_ = w.Flush()
	return all
}

// compareTo measures one side against a time that is given.
func compareTo(name string, limit float64, ours func() (float64, error)) (*row, error) {
	r, err := compare(name, 1, ours, func() (float64, error) { return limit, nil })
	if err == nil {
		r.limit = fmt.Sprintf("%g s", limit)
	}
	return r, err
}
