package main

import (
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
)

// rounds is how often the sides of a row take turns. Memory is noisier.
const (
	rounds     = 5
	manyRounds = 9
)

// sample is the outcomes of one side, or their ratios.
type sample []float64

func (s sample) median() float64 { return slices.Sorted(slices.Values(s))[len(s)/2] }

func (s sample) text(unit string) string {
	return fmt.Sprintf("%.3g%s (%.3g to %.3g)", s.median(), unit, slices.Min(s), slices.Max(s))
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
	return fmt.Sprintf("%s %g\t%s", sign, r.aim, word), met
}

// turns lets sides take so many turns, and returns what each one gave in each.
func turns(rounds int, sides ...func() (float64, error)) ([]sample, error) {
	all := make([]sample, len(sides))
	for turn := range rounds + 1 {
		for i, side := range sides {
			v, err := side()
			if err != nil {
				return nil, err
			}
			if turn > 0 { // the first one warms up
				all[i] = append(all[i], v)
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

func minus(a, b float64) float64 { return a - b }

func over(a, b float64) float64 { return a / b }

// printTable returns whether all aims were met.
func printTable(rows []*row) bool {
	all := true
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "WHAT\tOURS\tLIMIT\tRATIO\tAIM\t")
	for _, r := range rows {
		text, met := r.verdict()
		all = all && met
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.name, r.ours, r.limit, r.ratio.text(""), text)
	}
	_ = w.Flush()
	return all
}
