package protocol

import (
	"encoding/json"
	"fmt"
	"iter"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// rangeJSON is the text form of an OffsetRange.
type rangeJSON struct {
	From    string `json:"from"`
	Through string `json:"through,omitempty"` // empty stands for From
}

// decodeJSONSettle reads the text form of a frame of the kind: places are
// positions, `positions` for single messages and `ranges` for more.
func decodeJSONSettle(b []byte, kind SettleKind) (any, error) {
	var form struct {
		Ref        uint32  `json:"ref"`
		Sub        uint32  `json:"sub"`
		Generation uint64  `json:"generation"`
		Positions  rawJSON `json:"positions"`
		Ranges     rawJSON `json:"ranges"`
		UpTo       bool    `json:"up_to"`
		Confirm    bool    `json:"confirm"`
		DelayMs    *uint64 `json:"delay_ms"`
		ByMs       uint64  `json:"by_ms"`
		Reason     string  `json:"reason"`
	}
	if err := json.Unmarshal(b, &form); err != nil {
		return nil, err
	}
	positions, single, refused := form.Positions.array("positions")
	if refused != nil {
		return nil, refused
	}
	ranges, several, refused := form.Ranges.array("ranges")
	if refused == nil {
		refused = checkRanges(kind, single+several)
	}
	if refused != nil {
		return nil, refused
	}
	s := &Settle{
		Kind: kind, Ref: form.Ref, Sub: form.Sub, Generation: form.Generation, Ranges: make([]OffsetRange, 0, single+several),
		UpTo: form.UpTo && kind == SettleAck, Confirm: form.Confirm,
	}
	switch {
	case kind == SettleNack && form.DelayMs != nil:
		s.setDelay(*form.DelayMs)
	case kind == SettleExtend:
		s.setDelay(form.ByMs)
	case kind == SettleReject:
		s.Reason = form.Reason
	}
	if err := s.addPositions(positions, single); err != nil {
		return nil, err
	}
	if err := s.addRanges(ranges, several); err != nil {
		return nil, err
	}
	if refused := s.Check(); refused != nil {
		return nil, refused
	}
	return s, nil
}

func (s *Settle) addPositions(positions iter.Seq[[]byte], n int) error {
	i := 0
	for text := range positions {
		i++
		var position string
		what := fmt.Sprintf("position %d of %d", i, n)
		if err := json.Unmarshal(text, &position); err != nil {
			return Errorf(CodeBadRequest, "%s", jsonProblem(what, err))
		}
		if err := s.addPlaces(what, position, position); err != nil {
			return err
		}
	}
	return nil
}

func (s *Settle) addRanges(ranges iter.Seq[[]byte], n int) error {
	i := 0
	for text := range ranges {
		i++
		var form rangeJSON
		what := fmt.Sprintf("range %d of %d", i, n)
		if err := json.Unmarshal(text, &form); err != nil {
			return Errorf(CodeBadRequest, "%s", jsonProblem(what, err))
		}
		if form.Through == "" {
			form.Through = form.From
		}
		if err := s.addPlaces(what, form.From, form.Through); err != nil {
			return err
		}
	}
	return nil
}

// addPlaces adds a range from one position to another.
func (s *Settle) addPlaces(what, from, through string) error {
	first, err := ParsePosition(from)
	last := first
	if err == nil && through != from {
		last, err = ParsePosition(through)
	}
	switch {
	case err != nil:
		e := AsError(err)
		return Errorf(e.Code, "%s: %s", what, e.Message)
	case s.Term != 0 && first.Term != s.Term || last.Term != first.Term:
		return Errorf(CodeBadRequest, "%s is of another term than the positions before it: send a frame for each term", what)
	case last.Partition != first.Partition:
		return Errorf(CodeBadRequest, "%s ends in another partition than it begins", what)
	}
	s.Term = first.Term
	s.Ranges = append(s.Ranges, OffsetRange{Partition: first.Partition, From: first.Offset, Through: last.Offset})
	return nil
}

// ackedJSON is the text form of Acked: places are positions.
func ackedJSON(f *tidewirev1.Acked) any {
	type refusedJSON struct {
		rangeJSON
		Code string `json:"code"`
	}
	form := struct {
		*tidewirev1.Acked
		Term    string        `json:"term,omitempty"` // stays empty: it is in the positions
		Refused []refusedJSON `json:"refused,omitempty"`
	}{Acked: f}
	term, _ := ParseTerm(f.Term)
	for _, r := range f.Refused {
		from := Position{Term: term, Partition: r.Partition, Offset: r.From}
		through := from
		through.Offset = max(r.From, r.Through)
		form.Refused = append(form.Refused, refusedJSON{rangeJSON{from.String(), through.String()}, r.Code})
	}
	return form
}
