package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// DecodeSettles reads the JSON with which messages of a consumer are settled over
// HTTP, in any of the four ways at once:
//
//	{"generation":12,"ack":[POSITION],"nack":[{"position":POSITION,"delay":"5s"}],
//	 "extend":[{"position":POSITION,"by":"1m"}],"reject":[{"position":POSITION,"reason":"..."}]}
//
// An element may also be a position alone. Messages that are treated alike and of
// one term become one Settle, in the order in which the first of them stands.
func DecodeSettles(b []byte) ([]*Settle, error) {
	const what = "the body"
	if !utf8.Valid(b) {
		return nil, Errorf(CodeBadRequest, "%s is not valid UTF-8", what)
	}
	var form struct {
		Generation uint64  `json:"generation"`
		Ack        rawJSON `json:"ack"`
		Nack       rawJSON `json:"nack"`
		Extend     rawJSON `json:"extend"`
		Reject     rawJSON `json:"reject"`
	}
	if err := DecodeStrict(what, b, &form); err != nil {
		return nil, err
	}
	if loneSurrogates(b) > 0 {
		return nil, Errorf(CodeBadRequest, `%s has an escape such as \ud800, half of a surrogate pair, which is no character: leave it out`, what)
	}
	lists := [...]rawJSON{SettleAck: form.Ack, SettleNack: form.Nack, SettleExtend: form.Extend, SettleReject: form.Reject}
	total := 0
	for kind, list := range lists {
		_, n, err := list.array(SettleKind(kind).String())
		if err != nil {
			return nil, err
		}
		total += n
	}
	switch {
	case total == 0:
		return nil, Errorf(CodeBadRequest, "%s names no message: list positions in ack, nack, extend or reject", what)
	case total > MaxSettleRanges:
		return nil, Exceeded(LimitSettle, "%s has %d positions, at most %d are allowed: send several requests", what, total, MaxSettleRanges)
	}
	group := settleGroup{generation: form.Generation, by: make(map[settleKey]*Settle)}
	for kind, list := range lists {
		if err := group.add(SettleKind(kind), list); err != nil {
			return nil, err
		}
	}
	return group.all, nil
}

// settleGroup gathers the positions of one body.
type settleGroup struct {
	generation uint64
	all        []*Settle
	by         map[settleKey]*Settle
}

// settleKey is what positions of one Settle have in common.
type settleKey struct {
	kind   SettleKind
	term   Term
	given  bool // a delay
	delay  time.Duration
	reason string
}

// settleForm is an element that is an object.
type settleForm struct {
	Position string  `json:"position"`
	Delay    *string `json:"delay"`
	By       *string `json:"by"`
	Reason   *string `json:"reason"`
}

func (g *settleGroup) add(kind SettleKind, list rawJSON) *Error {
	elements, n, _ := list.array(kind.String())
	i := 0
	for text := range elements {
		i++
		what := fmt.Sprintf("%s %d of %d", kind, i, n)
		var form settleForm
		if text = bytes.TrimSpace(text); text[0] == '{' {
			if err := DecodeStrict(what, text, &form); err != nil {
				return err
			}
		} else if err := json.Unmarshal(text, &form.Position); err != nil {
			return Errorf(CodeBadRequest, "%s", jsonProblem(what, err))
		}
		if err := g.put(kind, &form); err != nil {
			err.Message = what + ": " + err.Message
			return err
		}
	}
	return nil
}

// put adds one position to those that are treated alike.
func (g *settleGroup) put(kind SettleKind, form *settleForm) *Error {
	at, failed := ParsePosition(form.Position)
	if failed != nil {
		return AsError(failed)
	}
	key := settleKey{kind: kind, term: at.Term}
	for _, field := range []struct {
		name  string
		value *string
		of    SettleKind
	}{{"delay", form.Delay, SettleNack}, {"by", form.By, SettleExtend}, {"reason", form.Reason, SettleReject}} {
		switch {
		case field.value == nil:
		case field.of != kind:
			return Errorf(CodeBadRequest, "`%s` belongs to %s, not to %s", field.name, field.of, kind)
		case kind == SettleReject:
			key.reason = *field.value
		default:
			d, err := time.ParseDuration(*field.value)
			if err != nil || d < 0 || d == 0 && kind == SettleExtend {
				return Errorf(CodeBadRequest, "`%s` is %s, which is no duration such as 5s or 1m30s", field.name, quote(*field.value))
			}
			key.given, key.delay = true, min(d, maxRepeatAge)
		}
	}
	s := g.by[key]
	if s == nil {
		s = &Settle{Kind: kind, Generation: g.generation, Term: at.Term, Confirm: true, Reason: key.reason}
		if key.given {
			s.Delay = &key.delay
		}
		g.by[key] = s
		g.all = append(g.all, s)
	}
	s.Ranges = append(s.Ranges, OffsetRange{Partition: at.Partition, From: at.Offset, Through: at.Offset})
	return (&Settle{Kind: kind, Term: s.Term, Ranges: s.Ranges[len(s.Ranges)-1:], Delay: s.Delay, Reason: s.Reason}).Check()
}

// DecodeStrict reads JSON into a form. What follows it is refused, and so is a
// field that the form does not have: a misspelt one must not be without effect.
// what names the text in the sentences of errors, whose code is bad_request.
func DecodeStrict(what string, b []byte, form any) *Error {
	in := json.NewDecoder(bytes.NewReader(b))
	in.DisallowUnknownFields()
	err := in.Decode(form)
	if err == nil {
		if rest := bytes.TrimSpace(b[in.InputOffset():]); len(rest) > 0 {
			return Errorf(CodeBadRequest, "%s goes on behind its end, with %s: send one JSON object", what, quote(string(rest)))
		}
		return nil
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok { // it has no type
		return Errorf(CodeBadRequest, "%s has the field %s, which is not known here: correct it or leave it out", what, quote(strings.Trim(name, `"`)))
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return Errorf(CodeBadRequest, "%s is empty: send a JSON object", what)
	}
	return Errorf(CodeBadRequest, "%s", jsonProblem(what, err))
}
