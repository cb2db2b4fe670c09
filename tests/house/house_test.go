// Package house holds the rules that the layout of the code obeys: which room
// may import which, which room owns which library, how long a file or a
// function may be. The rules are tables below. The picture of the rooms is in
// ARCHITECTURE.md.
package house

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tidewire/tidewire"

// The size aims. Generated code and test files are exempt.
const (
	maxFileLines     = 400
	maxFunctionLines = 60
	maxStructFields  = 15
)

// rooms says what the packages below each directory may import of this
// module; each room may also import itself. The longest directory that fits
// is the room of a package. "*" stands for every room but tests and bench.
var rooms = map[string][]string{
	"proto":         {},
	"protocol":      {"proto"},
	"storage":       {"storage/boltfile", "protocol", "proto"},
	"broker":        {"broker/cluster", "broker/consumer", "storage", "protocol", "proto"},
	"broker/server": {"broker", "storage", "protocol", "proto", "docs"},
	"broker/bridge": {"broker/bridge/kafka", "broker/cluster", "storage", "protocol", "proto"},
	"clients/go":    {"protocol", "proto"},
	"clients/js":    {},           // files that are compiled in
	"clients/demo":  {},           // so are these
	"config":        {"protocol"}, // the parts have options of their own; cmd maps one to the other
	"cmd":           {"*"},
	"docs":          {}, // pages that are compiled in
	"scripts":       {},
	"scripts/docs":  {"protocol", "storage", "broker", "broker/bridge", "broker/bridge/connect", "broker/server"}, // it writes tables of the code into pages
	"bench":         {"*"},
	"bench/fan":     {"*", "bench", "tests"}, // it starts Kafka as tests do
	"bench/limit":   {},                      // the yardstick must not share our faults
	"tests":         {"*", "tests/judge"},
	"tests/judge":   {}, // nor may the judge

	"broker/cluster":        {"broker/consumer", "protocol", "proto"}, // likewise, but for who drives it
	"broker/consumer":       {"protocol"},                             // a state machine, without I/O
	"broker/bridge/connect": {"broker/bridge", "broker/bridge/kafka", "broker/cluster", "storage", "protocol", "proto"},
	"broker/bridge/kafka":   {}, // speaks with Kafka, and knows nothing of messages
	"storage/boltfile":      {}, // reads pages, and knows nothing of what they hold
}

// A library may be imported below the directories given, and below each of
// them by one package only unless shared is set. Test files and the tests of
// whole programs are free, except the judge.
type library struct {
	path   string
	in     []string
	shared bool
}

var libraries = []library{
	{path: "go.etcd.io/bbolt", in: []string{"storage"}},
	{path: "github.com/lxzan/gws", in: []string{"broker/server", "clients/go"}},
	{path: "github.com/segmentio/kafka-go", in: []string{"broker/bridge/kafka"}},
	{path: "github.com/shirou/gopsutil/v4", in: []string{"cmd/tidewire/hostfeed"}},
	{path: "google.golang.org/protobuf", in: []string{"proto", "protocol", "broker/cluster"}, shared: true},
}

func TestImportsPointOneWay(t *testing.T) {
	report(t, checkArrows(tree(t)))
}

func TestLibrariesHaveOneOwner(t *testing.T) {
	report(t, checkLibraries(tree(t)))
}

func TestSizes(t *testing.T) {
	report(t, checkSizes(tree(t)))
}

func TestNoSleepInRealTime(t *testing.T) {
	report(t, checkSleeps(tree(t)))
}

func report(t *testing.T, complaints []string) {
	t.Helper()
	for _, c := range complaints {
		t.Error(c)
	}
}

// source is one Go file; name is its path from the root, with slashes.
type source struct {
	name  string
	file  *ast.File
	fset  *token.FileSet
	lines int
}

func (s source) dir() string       { return path.Dir(s.name) }
func (s source) test() bool        { return strings.HasSuffix(s.name, "_test.go") }
func (s source) in(at string) bool { return within(s.dir(), at) }

// imports returns the import paths of the file, in its order.
func (s source) imports() []string {
	var all []string
	for _, spec := range s.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// within reports whether p is dir or lies below it; both use slashes.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}

func parse(name string, text []byte) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	lines := strings.Count(string(text), "\n")
	if len(text) > 0 && text[len(text)-1] != '\n' {
		lines++
	}
	return source{name: name, file: file, fset: fset, lines: lines}, nil
}

// tree parses every Go file of the repository.
func tree(t *testing.T) []source {
	t.Helper()
	root := root(t)
	var all []source
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != root && skipDir(d.Name()) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(file) != ".go" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		src, err := parse(filepath.ToSlash(name), text)
		if err != nil {
			return err
		}
		all = append(all, src)
		return nil
	})
	if err != nil {
		t.Fatalf("read the source of the module: %v", err)
	}
	return all
}

func skipDir(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") ||
		slices.Contains([]string{"testdata", "node_modules", "vendor", "bin", "tidewire-data"}, name)
}

// root is the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// roomOf returns the longest room that holds the directory, or "".
func roomOf(dir string) string {
	var best string
	for room := range rooms {
		if within(dir, room) && len(room) > len(best) {
			best = room
		}
	}
	return best
}

// checkArrows compares imports of this module with the table of rooms. Test
// files are free, except those of the judge.
func checkArrows(files []source) []string {
	var bad []string
	for _, s := range files {
		room := roomOf(s.dir())
		if room == "" {
			bad = append(bad, fmt.Sprintf("%s: no room holds this package; add one to the table in tests/house", s.name))
			continue
		}
		if s.test() && room != "tests/judge" {
			continue
		}
		for _, p := range s.imports() {
			if !within(p, module) {
				continue
			}
			target := roomOf(strings.TrimPrefix(strings.TrimPrefix(p, module), "/"))
			if target != room && !mayImport(room, target) {
				bad = append(bad, fmt.Sprintf("%s: %s must not import %s", s.name, room, p))
			}
		}
	}
	return bad
}

func mayImport(room, target string) bool {
	allowed := rooms[room]
	if slices.Contains(allowed, target) {
		return true
	}
	return slices.Contains(allowed, "*") && target != "" && !within(target, "tests") && !within(target, "bench")
}

// checkLibraries compares imports of the libraries with their owners.
func checkLibraries(files []source) []string {
	var bad []string
	for _, lib := range libraries {
		importers := map[string]map[string]bool{} // owner, then directories
		for _, s := range files {
			if !slices.ContainsFunc(s.imports(), func(p string) bool { return within(p, lib.path) }) {
				continue
			}
			judge := s.in("tests/judge")
			if !judge && (s.test() || s.in("tests") || s.in("bench")) {
				continue
			}
			owner := slices.IndexFunc(lib.in, s.in)
			if owner < 0 {
				bad = append(bad, fmt.Sprintf("%s: %s is imported only below %s", s.name, lib.path, strings.Join(lib.in, ", ")))
				continue
			}
			dirs := importers[lib.in[owner]]
			if dirs == nil {
				dirs = map[string]bool{}
				importers[lib.in[owner]] = dirs
			}
			dirs[s.dir()] = true
		}
		for owner, dirs := range importers {
			if !lib.shared && len(dirs) > 1 {
				names := strings.Join(slices.Sorted(maps.Keys(dirs)), ", ")
				bad = append(bad, fmt.Sprintf("%s: %s is imported by %d packages below it, not by one: %s", owner, lib.path, len(dirs), names))
			}
		}
	}
	return bad
}

// checkSizes measures what is neither test nor generated. A function counts
// from "func" to its closing brace, a function literal for itself too.
func checkSizes(files []source) []string {
	var bad []string
	for _, s := range files {
		if s.test() || ast.IsGenerated(s.file) {
			continue
		}
		if s.lines > maxFileLines {
			bad = append(bad, fmt.Sprintf("%s: %d lines, the aim is %d", s.name, s.lines, maxFileLines))
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if c := s.checkNode(n); c != "" {
				bad = append(bad, c)
			}
			return true
		})
	}
	return bad
}

func (s source) checkNode(n ast.Node) string {
	switch n := n.(type) {
	case *ast.FuncDecl:
		return s.checkFunction(n, n.Type.Func, n.Name.Name)
	case *ast.FuncLit:
		return s.checkFunction(n, n.Pos(), "a function literal")
	case *ast.StructType:
		if fields := n.Fields.NumFields(); fields > maxStructFields {
			return fmt.Sprintf("%s:%d: a struct of %d fields, the aim is %d", s.name, s.line(n.Pos()), fields, maxStructFields)
		}
	}
	return ""
}

func (s source) checkFunction(n ast.Node, start token.Pos, name string) string {
	lines := s.line(n.End()) - s.line(start) + 1
	if lines <= maxFunctionLines {
		return ""
	}
	return fmt.Sprintf("%s:%d: %s has %d lines, the aim is %d", s.name, s.line(start), name, lines, maxFunctionLines)
}

func (s source) line(pos token.Pos) int { return s.fset.Position(pos).Line }

// checkSleeps refuses time.Sleep in a test file that does not import
// testing/synctest: only inside its bubbles does a sleep cost nothing.
// Whether the call is in a bubble cannot be seen from the source.
func checkSleeps(files []source) []string {
	var bad []string
	for _, s := range files {
		if !s.test() || slices.Contains(s.imports(), "testing/synctest") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Sleep" {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" {
				bad = append(bad, fmt.Sprintf("%s:%d: a sleep in real time; wait for what happens, or use testing/synctest", s.name, s.line(n.Pos())))
			}
			return true
		})
	}
	return bad
}

// The tests below prove that each rule can fail.

// ruleCase is a small tree and what a rule must say about it: one complaint
// that contains the text, or none if the text is empty.
type ruleCase struct {
	name  string
	files map[string]string
	want  string
}

func runRule(t *testing.T, rule func([]source) []string, cases []ruleCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var files []source
			for name, text := range c.files {
				s, err := parse(name, []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, s)
			}
			slices.SortFunc(files, func(a, b source) int { return cmp.Compare(a.name, b.name) })
			got := rule(files)
			if c.want == "" && len(got) > 0 {
				t.Errorf("refused: %q", got)
			}
			if c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("got %q, want one complaint with %q", got, c.want)
			}
		})
	}
}

// importing is the source of a file that imports the paths; those of this
// module begin with "./".
func importing(paths ...string) string {
	var b strings.Builder
	b.WriteString("package p\n")
	for _, p := range paths {
		if rest, ours := strings.CutPrefix(p, "./"); ours {
			p = module + "/" + rest
		}
		fmt.Fprintf(&b, "import _ %q\n", p)
	}
	return b.String()
}

func arrow(from, to string) map[string]string {
	return map[string]string{from: importing(to)}
}

func TestArrowRule(t *testing.T) {
	const refused = "must not import"
	runRule(t, checkArrows, []ruleCase{
		{"down", arrow("broker/server/a.go", "./broker"), ""},
		{"down two", arrow("broker/a.go", "./proto/tidewire/v1"), ""},
		{"within a room", arrow("broker/a.go", "./broker/match"), ""},
		{"standard library", arrow("proto/a.go", "fmt"), ""},
		{"like the module by name", arrow("proto/a.go", module+"x/broker"), ""},
		{"wiring", arrow("cmd/tidewire/a.go", "./broker/bridge"), ""},
		{"wiring the client", arrow("cmd/tidewire/a.go", "./clients/go"), ""},
		{"compiled pages", arrow("broker/server/a.go", "./docs"), ""},
		{"test file", arrow("protocol/a_test.go", "./broker"), ""},
		{"whole program", arrow("tests/kill/a.go", "./tests/judge"), ""},

		{"proto up", arrow("proto/tidewire/v1/a.go", "./protocol"), refused},
		{"protocol up", arrow("protocol/a.go", "./storage"), refused},
		{"storage up", arrow("storage/a.go", "./broker"), refused},
		{"broker up", arrow("broker/a.go", "./broker/server"), refused},
		{"below broker up", arrow("broker/match/a.go", "./broker/server"), refused},
		{"bridge to broker", arrow("broker/bridge/a.go", "./broker"), refused},
		{"server to bridge", arrow("broker/server/a.go", "./broker/bridge"), refused},
		{"client to storage", arrow("clients/go/a.go", "./storage"), refused},
		{"broker to client", arrow("broker/a.go", "./clients/go"), refused},
		{"to cmd", arrow("broker/server/a.go", "./cmd/tidewire"), refused},
		{"program to tests", arrow("cmd/tidewire/a.go", "./tests/judge"), refused},
		{"program to bench", arrow("cmd/tidewire/a.go", "./bench/limit"), refused},
		{"to the root", map[string]string{"broker/a.go": importing(module)}, refused},
		{"judge", arrow("tests/judge/a.go", "./protocol"), refused},
		{"judge's test", arrow("tests/judge/a_test.go", "./protocol"), refused},
		{"below the judge", arrow("tests/judge/cmd/a.go", "./clients/go"), refused},
		{"limit", arrow("bench/limit/a.go", "./storage"), refused},
		{"no room", arrow("util/a.go", "fmt"), "no room"},
	})
}

func TestLibraryRule(t *testing.T) {
	const only = "is imported only below"
	runRule(t, checkLibraries, []ruleCase{
		{"bbolt at home", arrow("storage/a.go", "go.etcd.io/bbolt"), ""},
		{"gws at both homes", map[string]string{
			"broker/server/a.go": importing("github.com/lxzan/gws"),
			"broker/server/b.go": importing("github.com/lxzan/gws"),
			"clients/go/a.go":    importing("github.com/lxzan/gws"),
		}, ""},
		{"kafka at home", arrow("broker/bridge/kafka/a.go", "github.com/segmentio/kafka-go"), ""},
		{"protobuf shared", map[string]string{
			"proto/tidewire/v1/a.go": importing("google.golang.org/protobuf/proto"),
			"protocol/a.go":          importing("google.golang.org/protobuf/proto"),
			"protocol/wire/a.go":     importing("google.golang.org/protobuf/encoding/protowire"),
		}, ""},
		{"test file", arrow("broker/a_test.go", "go.etcd.io/bbolt"), ""},
		{"whole program", arrow("tests/seam/a.go", "github.com/lxzan/gws"), ""},
		{"like it by name", arrow("broker/a.go", "github.com/lxzan/gwsx"), ""},

		{"bbolt", arrow("broker/a.go", "go.etcd.io/bbolt"), only},
		{"bbolt below", arrow("broker/a.go", "go.etcd.io/bbolt/errors"), only},
		{"gws", arrow("broker/a.go", "github.com/lxzan/gws"), only},
		{"kafka", arrow("cmd/tidewire/a.go", "github.com/segmentio/kafka-go"), only},
		{"protobuf", arrow("storage/a.go", "google.golang.org/protobuf/proto"), only},
		{"judge", arrow("tests/judge/a.go", "github.com/lxzan/gws"), only},
		{"judge's test", arrow("tests/judge/a_test.go", "github.com/lxzan/gws"), only},
		{"two packages", map[string]string{
			"storage/a.go":         importing("go.etcd.io/bbolt"),
			"storage/segment/a.go": importing("go.etcd.io/bbolt"),
		}, "by 2 packages"},
	})
}

func TestSizeRule(t *testing.T) {
	const generated = "// Code generated by x. DO NOT EDIT.\n\n"
	file := func(lines int) string { return "package p\n" + strings.Repeat("// x\n", lines-1) }
	function := func(lines int) string {
		return "package p\n\nfunc f() {\n" + strings.Repeat("\tprintln()\n", lines-2) + "}\n"
	}
	fields := func(n int) string {
		return "package p\n\ntype t struct {\n\tone, two int\n" + strings.Repeat("\t_ int\n", n-2) + "}\n"
	}
	one := func(name, text string) map[string]string { return map[string]string{name: text} }
	runRule(t, checkSizes, []ruleCase{
		{"file at the aim", one("a/a.go", file(maxFileLines)), ""},
		{"function at the aim", one("a/a.go", function(maxFunctionLines)), ""},
		{"struct at the aim", one("a/a.go", fields(maxStructFields)), ""},
		{"test", one("a/a_test.go", file(maxFileLines+1)), ""},
		{"generated", one("a/a.go", generated+function(maxFileLines+1)), ""},

		{"file", one("a/a.go", file(maxFileLines+1)), "401 lines"},
		{"no newline at the end", one("a/a.go", file(maxFileLines)+"// x"), "401 lines"},
		{"function", one("a/a.go", function(maxFunctionLines+1)), "f has 61 lines"},
		{"literal", one("a/a.go", strings.Replace(function(maxFunctionLines+1), "func f()", "var f = func()", 1)), "literal has 61 lines"},
		{"struct", one("a/a.go", fields(maxStructFields+1)), "16 fields"},
	})
}

func TestSleepRule(t *testing.T) {
	text := func(imports string) string {
		return "package p\n\nimport \"time\"\n" + imports + "\nfunc f() { time.Sleep(time.Second) }\n"
	}
	runRule(t, checkSleeps, []ruleCase{
		{"in virtual time", map[string]string{"a/a_test.go": text("import \"testing/synctest\"\n")}, ""},
		{"no test", map[string]string{"a/a.go": text("")}, ""},
		{"in real time", map[string]string{"a/a_test.go": text("")}, "a sleep in real time"},
	})
}
