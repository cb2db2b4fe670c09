package config

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFileBytes bounds a configuration file: a wrong path must not fill memory.
const maxFileBytes = 1 << 20

// readFile sets in c what the YAML file says.
func (c *Config) readFile(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return fmt.Errorf("the configuration file %s cannot be read: %w", name, cause(err))
	case info.IsDir():
		return fmt.Errorf("the configuration file %s is a directory; give the path of the file in it", name)
	case info.Size() > maxFileBytes:
		return fmt.Errorf("the configuration file %s has %d bytes, at most %d are read: is it the right file?", name, info.Size(), maxFileBytes)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("the configuration file %s cannot be read: %w", name, cause(err))
	}
	return c.parse(name, text)
}

// cause strips the call and the path from an error of package os.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// parse sets in c what the text of a YAML file says. name is for errors.
//
// The library's own decoder is not used: it stops at the first level of an
// unknown key and loses the place of a value that does not parse, and people
// need both the path and the line.
func (c *Config) parse(name string, text []byte) error {
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return syntaxError(name, err)
	}
	r := reader{name: name}
	seen := false
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType {
			continue
		}
		if seen {
			return r.errorf(doc.Body, "a second document begins here, but one is read; remove the line --- and what follows")
		}
		seen = true
		if err := r.value("", doc.Body, reflect.ValueOf(c).Elem()); err != nil {
			return err
		}
	}
	return nil
}

func syntaxError(name string, err error) error {
	e, ok := errors.AsType[yaml.Error](err)
	if !ok || e.GetToken() == nil || e.GetToken().Position == nil {
		return fmt.Errorf("%s is not YAML: %w", name, err)
	}
	message, _, _ := strings.Cut(e.GetMessage(), "\n")
	return fmt.Errorf("%s, line %d: this is not YAML: %s", name, e.GetToken().Position.Line, message)
}

// reader puts parsed YAML into a Config.
type reader struct{ name string }

// errorf makes an error that begins with the place of the node.
func (r reader) errorf(n ast.Node, format string, args ...any) error {
	return fmt.Errorf("%s, line %d: "+format, append([]any{r.name, line(n)}, args...)...)
}

func line(n ast.Node) int {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// value sets v, which is at path, to what the node says. Nothing behind a key
// leaves the setting as it is.
func (r reader) value(path string, n ast.Node, v reflect.Value) error {
	switch n.Type() {
	case ast.NullType:
		return nil
	case ast.AnchorType, ast.AliasType, ast.TagType, ast.MergeKeyType:
		return r.errorf(n, "anchors, aliases, merges and tags are not read here; write the value itself")
	}
	switch {
	case v.Kind() == reflect.Struct:
		return r.mapping(path, n, v)
	case v.Kind() == reflect.Slice:
		return r.list(path, n, v)
	default:
		return r.scalar(path, n, v)
	}
}

func (r reader) mapping(path string, n ast.Node, v reflect.Value) error {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		known := names(fields(v))
		if path == "" {
			return r.errorf(n, "this is not a list of settings; write them as `key: value`, such as `listen: 127.0.0.1:7070`")
		}
		return r.errorf(n, "%s has no value of its own; write its settings in the lines below, indented: %s", path, strings.Join(known, ", "))
	}
	seen := make(map[string]int)
	for _, entry := range values {
		if entry.Key.IsMergeKey() {
			return r.errorf(entry.Key, "anchors, aliases, merges and tags are not read here; write the value itself")
		}
		key := entry.Key.GetToken().Value
		f, ok := find(fields(v), key)
		if !ok {
			return r.errorf(entry.Key, "there is no setting %q%s", join(path, key), suggest(path, key, v))
		}
		if before, ok := seen[key]; ok {
			return r.errorf(entry.Key, "%s is set in line %d already; keep one of them", join(path, key), before)
		}
		seen[key] = line(entry.Key)
		if err := r.value(join(path, f.name), entry.Value, f.value); err != nil {
			return err
		}
	}
	return nil
}

func find(all []field, name string) (field, bool) {
	for _, f := range all {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

func names(all []field) []string {
	list := make([]string, 0, len(all))
	for _, f := range all {
		list = append(list, f.name)
	}
	return list
}

// suggest ends the sentence about an unknown key: with the nearest key of the
// same place, else with the nearest of all, else with those of the place.
func suggest(path, key string, v reflect.Value) string {
	here := names(fields(v))
	if near := nearest(key, here); near != "" {
		return fmt.Sprintf("; did you mean %q?", join(path, near))
	}
	last := func(p string) string { return p[strings.LastIndexByte(p, '.')+1:] }
	var everywhere []string
	for _, p := range paths() {
		everywhere = append(everywhere, last(p))
	}
	if near := nearest(key, everywhere); near != "" {
		for _, p := range paths() {
			if last(p) == near {
				return fmt.Sprintf("; did you mean %q?", strings.ReplaceAll(p, ".0.", "[0]."))
			}
		}
	}
	return fmt.Sprintf("; known here are %s", strings.Join(here, ", "))
}

func (r reader) list(path string, n ast.Node, v reflect.Value) error {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		return r.errorf(n, "%s is a list; write its elements in the lines below, each behind `- `, or write []", path)
	}
	list := reflect.MakeSlice(v.Type(), len(sequence.Values), len(sequence.Values))
	for i, element := range sequence.Values {
		at := path + "[" + strconv.Itoa(i) + "]"
		if element.Type() == ast.NullType {
			return r.errorf(sequence, "%s is empty; write a value behind its `-`, or remove it", at)
		}
		setDefaults(list.Index(i))
		if err := r.value(at, element, list.Index(i)); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

func (r reader) scalar(path string, n ast.Node, v reflect.Value) error {
	var text string
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		text = n.GetToken().Value
	default:
		return r.errorf(n, "%s is one value, not a list and not a group of settings", path)
	}
	if err := set(v, text); err != nil {
		return r.errorf(n, "%s: %w", path, err)
	}
	return nil
}

// set reads text as what v holds.
func set(v reflect.Value, text string) error {
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false; write one of them", text)
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a whole number; write one such as 1000", text)
		}
		v.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number; write one such as 1.5", text)
		}
		v.SetFloat(f)
	default:
		return fmt.Errorf("the type %s cannot be set", v.Type())
	}
	return nil
}
