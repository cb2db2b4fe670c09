package rig

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Sample is the outcomes of one side, or their ratios.
type Sample []float64

// Median is the middle one.
func (s Sample) Median() float64 { return slices.Sorted(slices.Values(s))[len(s)/2] }

// Text is the median and the spread.
func (s Sample) Text(unit string) string {
	if len(s) == 1 {
		return fmt.Sprintf("%.4g%s", s[0], unit)
	}
	return fmt.Sprintf("%.3g%s (%.3g to %.3g)", s.Median(), unit, slices.Min(s), slices.Max(s))
}

// Each combines two samples turn by turn.
func Each(a, b Sample, f func(a, b float64) float64) Sample {
	c := make(Sample, len(a))
	for i := range a {
		c[i] = f(a[i], b[i])
	}
	return c
}

// Over is the ratio of a to b.
func Over(a, b float64) float64 { return a / b }

// Row is one line of the table.
type Row struct {
	Name   string
	Ours   string
	Beside string // a limit, or what a peer gives
	Ratio  Sample
	Aim    float64 // 0 if the row is there to compare with
	Least  bool    // the ratio should be the aim at least, not at most
}

func (r *Row) verdict() (text string, met bool) {
	if r.Aim == 0 {
		return "", true
	}
	sign := "<="
	met = r.Ratio.Median() <= r.Aim
	if r.Least {
		sign, met = ">=", r.Ratio.Median() >= r.Aim
	}
	word := "ok"
	if !met {
		word = "MISSED"
	}
	return fmt.Sprintf("%s %.3g\t%s", sign, r.Aim, word), met
}

// Print prints the table and returns whether all aims were met. beside says what
// stands beside ours.
func Print(to io.Writer, beside string, rows []*Row) bool {
	all := true
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "WHAT\tOURS\t%s\tRATIO\tAIM\t\n", beside)
	for _, r := range rows {
		text, met := r.verdict()
		all = all && met
		ratio := ""
		if len(r.Ratio) > 0 {
			ratio = r.Ratio.Text("")
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Ours, r.Beside, ratio, text)
	}
	_ = w.Flush()
	return all
}
