package main

import (
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
)

// sample is the outcomes of one side, or their ratios.
type sample []float64

func (s sample) median() float64 { return slices.Sorted(slices.Values(s))[len(s)/2] }

func (s sample) text(unit string) string {
	if len(s) == 1 {
		return fmt.Sprintf("%.4g%s", s[0], unit)
	}
	return fmt.Sprintf("%.3g%s (%.3g to %.3g)", s.median(), unit, slices.Min(s), slices.Max(s))
}

// row is one line of the table.
type row struct {
	name  string
	ours  string
	peer  string // NATS's, or a limit
	ratio sample
	aim   float64 // 0 if the row is there to compare with
	least bool    // the ratio should be the aim at least, not at most
}

func (r *row) verdict() (text string, met bool) {
	if r.aim == 0 {
		return "", true
	}
	sign := "<="
	met = r.ratio.median() <= r.aim
	if r.least {
		sign, met = ">=", r.ratio.median() >= r.aim
	}
	word := "ok"
	if !met {
		word = "MISSED"
	}
	return fmt.Sprintf("%s %.3g\t%s", sign, r.aim, word), met
}

// A side is measured once by a call, and gives one or more figures.
type side = func() ([]float64, error)

// turns lets sides take so many turns after one that warms up, and returns a
// sample of each figure of each side.
func turns(rounds int, sides ...side) ([][]sample, error) {
	if _, err := series(1, sides...); err != nil {
		return nil, err
	}
	return series(rounds, sides...)
}

// series does without that: for what begins with fresh servers and shows no
// times.
func series(rounds int, sides ...side) ([][]sample, error) {
	all := make([][]sample, len(sides))
	for range rounds {
		for i, side := range sides {
			values, err := side()
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], make([]sample, len(values)-len(all[i]))...)
			for j, v := range values {
				all[i][j] = append(all[i][j], v)
			}
		}
	}
	return all, nil
}

// each combines two samples turn by turn.
func each(a, b sample, f func(a, b float64) float64) sample {
	c := make(sample, len(a))
	for i := range a {
		c[i] = f(a[i], b[i])
	}
	return c
}

func over(a, b float64) float64 { return a / b }

// printTable returns whether all aims were met.
func printTable(rows []*row) bool {
	all := true
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "WHAT\tOURS\tNATS OR LIMIT\tRATIO\tAIM\t")
	for _, r := range rows {
		text, met := r.verdict()
		all = all && met
		ratio := ""
		if len(r.ratio) > 0 {
			ratio = r.ratio.text("")
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.name, r.ours, r.peer, ratio, text)
	}
	_ = w.Flush()
	return all
}
