package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// rawJSON is a JSON value as it stands in the input: a part of it, not a copy
// as json.RawMessage is.
type rawJSON []byte

// UnmarshalJSON keeps b.
func (r *rawJSON) UnmarshalJSON(b []byte) error {
	*r = bytes.TrimSpace(b)
	return nil
}

// array returns the elements of the field name and their number, which is known
// before anything is allocated for them. An absent field has none.
func (r rawJSON) array(name string) (elements iter.Seq[[]byte], n int, err *Error) {
	if len(r) == 0 || string(r) == "null" {
		return func(func([]byte) bool) {}, 0, nil
	}
	if r[0] != '[' {
		return nil, 0, Errorf(CodeBadRequest, "the field %q must be an array", name)
	}
	elements = jsonElements(r)
	for range elements {
		n++
	}
	return elements, n, nil
}

// jsonElements yields the elements of a JSON array whose syntax was checked.
func jsonElements(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		depth, start := 0, 1
		for i := 0; i < len(array); i++ {
			switch array[i] {
			case '"':
				i += textLength(array[i:]) - 1
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			case ',':
				if depth == 1 {
					if !yield(array[start:i]) {
						return
					}
					start = i + 1
				}
			}
		}
		if last := bytes.TrimSpace(array[start : len(array)-1]); len(last) > 0 {
			yield(last)
		}
	}
}

// textLength is the length of the JSON string at the beginning of b, with its
// quotes.
func textLength(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// loneSurrogates counts the escapes in JSON that stand for half of a pair of
// UTF-16, as \ud800 alone does: they are no character, and encoding/json puts
// U+FFFD in their place without a word.
func loneSurrogates(b []byte) (n int) {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 || len(b) < i+2 {
			return n
		}
		b = b[i:]
		half, ok := escapedUnit(b)
		if !ok {
			b = b[2:]
			continue
		}
		b = b[len(`\uXXXX`):]
		if !utf16.IsSurrogate(half) {
			continue
		}
		if other, ok := escapedUnit(b); ok && utf16.DecodeRune(half, other) != utf8.RuneError {
			b = b[len(`\uXXXX`):]
			continue
		}
		n++
	}
}

// escapedUnit reads an escape such as \u00e9 at the beginning of b.
func escapedUnit(b []byte) (rune, bool) {
	if len(b) < len(`\uXXXX`) || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(v), err == nil
}

// headersJSON is the JSON form of headers, an object of texts. A name that is
// there twice stays there twice, so that [Message.Check] refuses it.
type headersJSON []Header

// UnmarshalJSON reads the object, one header more than is allowed at most.
func (h *headersJSON) UnmarshalJSON(b []byte) error {
	*h = nil
	in := json.NewDecoder(bytes.NewReader(b))
	open, err := in.Token()
	if err != nil || open == nil {
		return err
	}
	if open != json.Delim('{') {
		return Errorf(CodeInvalidHeader, `"headers" must be an object of texts`)
	}
	for in.More() && len(*h) <= MaxHeaders {
		name, err := in.Token()
		if err != nil {
			return err
		}
		value, err := in.Token()
		if err != nil {
			return err
		}
		text, ok := value.(string)
		if !ok {
			return Errorf(CodeInvalidHeader, "the value of the header %s must be a text", quote(name.(string)))
		}
		*h = append(*h, Header{Name: name.(string), Value: text})
	}
	return nil
}

// MarshalJSON writes the object.
func (h headersJSON) MarshalJSON() ([]byte, error) {
	object := make(map[string]string, len(h)) // encoding/json writes it in the order of names
	for _, header := range h {
		object[header.Name] = header.Value
	}
	return marshalJSON(object)
}

// jsonProblem says what encoding/json found wrong in what ("the frame"), without
// the names of Go and without repeating more of the input than a few bytes.
func jsonProblem(what string, err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field != "" {
			what = fmt.Sprintf("the field %s of %s", quote(e.Field), what)
		}
		value, _, _ := strings.Cut(e.Value, " ") // "number 1e99" repeats the number
		return fmt.Sprintf("%s is of the kind %s, but must be %s", what, value, jsonKind(e.Type))
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("%s is not JSON: %s, at byte %d", what, e.Error(), e.Offset)
	}
	return what + " is not JSON"
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Uint32:
		return "a whole number from 0 to 4294967295"
	case reflect.Uint64:
		return "a whole number from 0 to 18446744073709551615"
	case reflect.Slice:
		return "an array"
	case reflect.Float64:
		return "a number"
	default:
		return "an object"
	}
}
