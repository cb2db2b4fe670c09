package protocol

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// TestEveryLimitIsInTheTable reads the constants from the source.
func TestEveryLimitIsInTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "limits.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[Limit]bool)
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec)
			if strings.HasPrefix(value.Names[0].Name, "Limit") {
				found[Limit(strings.Trim(value.Values[0].(*ast.BasicLit).Value, `"`))] = true
			}
		}
	}
	seen := make(map[Limit]bool)
	for _, info := range Limits() {
		if seen[info.Limit] || !found[info.Limit] {
			t.Errorf("%s is twice in the table, or not a constant", info.Limit)
		}
		seen[info.Limit] = true
		if info.Protects == "" || (info.Code == "" && info.Effect == "") {
			t.Errorf("the table does not say what %s bounds, or what happens then", info.Limit)
		}
		if info.Code != "" && info.Code.index() < 0 {
			t.Errorf("%s refuses with the code %s, which does not exist", info.Limit, info.Code)
		}
	}
	if len(found) != len(seen) {
		t.Errorf("%d constants, %d limits in the table", len(found), len(seen))
	}
}

// A refusal says once which limit it is about.
func TestTakeLimit(t *testing.T) {
	m := Message{Topic: "a", Payload: []byte("xx")}
	err := m.Check(1)
	if err == nil || err.Code != CodePayloadTooLarge {
		t.Fatal(err)
	}
	if first, second := err.TakeLimit(), err.TakeLimit(); first != LimitPayload || second != "" {
		t.Errorf("first %q, then %q", first, second)
	}
	if l := Errorf(CodeBadRequest, "x").TakeLimit(); l != "" {
		t.Errorf("another error is about %q", l)
	}
}
