package connect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

// A Kind is what a template may ask for.
type Kind string

// The kinds of fields.
const (
	FieldTopic     Kind = "topic"
	FieldPartition Kind = "partition"
	FieldKey       Kind = "key"
	FieldID        Kind = "id"
	FieldHeader    Kind = "header" // {header.NAME}
	FieldJSON      Kind = "json"   // {json.a.b}, of the payload
)

// A Template is a text with fields in braces: orders.{json.region}.{key}.
type Template struct {
	text  string
	parts []part
}

// part is a text as it is, or a field.
type part struct {
	text string
	kind Kind     // empty for a text
	path []string // of a header its name, of JSON the members to follow
}

// ParseTemplate reads a template that may ask for fields of some kinds. The error
// says what to write instead.
func ParseTemplate(text string, kinds ...Kind) (*Template, error) {
	if text == "" {
		return nil, fmt.Errorf("a template must not be empty; write a text with fields such as {%s}", kinds[0])
	}
	t := &Template{text: text}
	for rest := text; rest != ""; {
		plain, behind, found := strings.Cut(rest, "{")
		if strings.Contains(plain, "}") {
			return nil, fmt.Errorf("%q has a '}' without a '{' before it; fields are written as {%s}", text, kinds[0])
		}
		if plain != "" {
			t.parts = append(t.parts, part{text: plain})
		}
		if !found {
			break
		}
		field, after, closed := strings.Cut(behind, "}")
		if !closed {
			return nil, fmt.Errorf("%q has a '{' without a '}' behind it; fields are written as {%s}", text, kinds[0])
		}
		p, err := parseField(field, kinds)
		if err != nil {
			return nil, err
		}
		t.parts, rest = append(t.parts, p), after
	}
	return t, nil
}

func parseField(field string, kinds []Kind) (part, error) {
	name, path, dotted := strings.Cut(field, ".")
	p := part{kind: Kind(name)}
	if slices.Contains(kinds, p.kind) {
		switch {
		case p.kind == FieldHeader && path != "" && !strings.ContainsAny(path, "{}"):
			p.path = []string{path}
			return p, nil
		case p.kind == FieldJSON && path != "":
			p.path = strings.Split(path, ".")
			if !slices.Contains(p.path, "") && !strings.Contains(path, "{") {
				return p, nil
			}
		case p.kind != FieldHeader && p.kind != FieldJSON && !dotted:
			return p, nil
		}
	}
	var known []string
	for _, k := range kinds {
		switch k {
		case FieldHeader:
			known = append(known, "{header.NAME}")
		case FieldJSON:
			known = append(known, "{json.a.b}")
		default:
			known = append(known, "{"+string(k)+"}")
		}
	}
	return part{}, fmt.Errorf("{%s} is no field here; there are %s", field, strings.Join(known, ", "))
}

// String returns the template as it was written.
func (t *Template) String() string { return t.text }

// fields are what a template is filled from.
type fields struct {
	topic, key, id string
	noKey          bool
	partition      string
	header         func(name string) (string, bool)
	payload        []byte

	parsed bool // the payload was looked at
	isJSON bool
	root   any
}

// fill returns the text with all fields put in, or why that cannot be.
func (t *Template) fill(f *fields) (string, Reason) {
	if len(t.parts) == 1 && t.parts[0].kind == "" {
		return t.parts[0].text, ""
	}
	var b strings.Builder
	for i := range t.parts {
		p := &t.parts[i]
		if p.kind == "" {
			b.WriteString(p.text)
			continue
		}
		value, why := f.get(p)
		if why != "" {
			return "", why
		}
		b.WriteString(value)
	}
	return b.String(), ""
}

func (f *fields) get(p *part) (value string, why Reason) {
	switch p.kind {
	case FieldTopic:
		return f.topic, ""
	case FieldPartition:
		return f.partition, ""
	case FieldID:
		return f.id, ""
	case FieldKey:
		if f.noKey {
			return "", MissingField
		}
		return f.key, ""
	case FieldHeader:
		if value, ok := f.header(p.path[0]); ok {
			return value, ""
		}
		return "", MissingField
	}
	return f.member(p.path)
}

// member returns a member of the payload that is a text, a number as it is
// written, or a truth value.
func (f *fields) member(path []string) (string, Reason) {
	if !f.parsed {
		f.parsed = true
		f.root, f.isJSON = parseJSON(f.payload)
	}
	if !f.isJSON {
		return "", NotJSON
	}
	at := f.root
	for _, name := range path {
		object, ok := at.(map[string]any)
		if !ok {
			return "", MissingField
		}
		at = object[name]
	}
	switch v := at.(type) {
	case string:
		return v, ""
	case json.Number:
		return v.String(), ""
	case bool:
		if v {
			return "true", ""
		}
		return "false", ""
	}
	return "", MissingField
}

// parseJSON reads one JSON value and nothing behind it. Numbers stay as they are
// written.
func parseJSON(b []byte) (root any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if d.Decode(&root) != nil {
		return nil, false
	}
	_, err := d.Token()
	return root, errors.Is(err, io.EOF)
}

// topicOf fills a template that makes a topic.
func topicOf(t *Template, f *fields) (topic string, why Reason) {
	topic, why = t.fill(f)
	switch {
	case why != "":
		return "", why
	case protocol.IsReserved(topic):
		return "", ReservedTopic
	case protocol.CheckTopic(topic) != nil:
		return "", InvalidTopic
	}
	return topic, ""
}
