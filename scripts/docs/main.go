// Command docs writes the tables of docs/ that the code knows best: each stands
// between two comments that name it,
//
//	<!-- NAME: begin ... -->
//	<!-- NAME: end -->
//
// and the rest of the page is left alone. Run it from the root of the
// repository. Its test fails when a page is out of date.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A table is one generated part of a page.
type table struct {
	page  string // below the root of the repository
	name  string // in its comments
	lines func() []string
}

// tables lists all of them; a new one needs a line here and its two comments in
// the page.
var tables = []table{
	{"docs/protocol.md", "codes", codes},
	{"docs/limits.md", "limits", limits},
	{"docs/metrics.md", "metrics", metrics},
}

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// run writes the pages that differ.
func run(root string) error {
	for _, t := range tables {
		name := filepath.Join(root, filepath.FromSlash(t.page))
		old, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		text, err := t.replace(string(old))
		if err != nil {
			return err
		}
		if text == string(old) {
			continue
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
		fmt.Printf("%s: wrote the table %s\n", t.page, t.name)
	}
	return nil
}

// replace returns the page with the table as it should be.
func (t table) replace(page string) (string, error) {
	before, rest, found := strings.Cut(page, "<!-- "+t.name+": begin")
	comment, rest, closed := strings.Cut(rest, "-->\n")
	_, after, ended := strings.Cut(rest, "<!-- "+t.name+": end -->")
	if !found || !closed || !ended || strings.Contains(comment, "\n") {
		return "", fmt.Errorf("%s lacks the lines <!-- %s: begin --> and <!-- %s: end -->", t.page, t.name, t.name)
	}
	var b strings.Builder
	b.WriteString(before + "<!-- " + t.name + ": begin" + comment + "-->\n")
	for _, line := range t.lines() {
		b.WriteString(line + "\n")
	}
	b.WriteString("<!-- " + t.name + ": end -->" + after)
	return b.String(), nil
}
