package server

import (
	"testing"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

// TestReviewLate: a session that was let in by rules that went before it was
// known is looked at all the same, and one that the new rules made is left
// alone.
func TestReviewLate(t *testing.T) {
	e := newTestEdge(t, Options{Access: guarded()})
	before := e.rules.Load()
	session := func(id *broker.Identity) *broker.Session {
		s := e.broker.NewSession(broker.SessionOptions{Identity: id, Codec: protocol.Proto{}, Wake: func() {}})
		t.Cleanup(s.Close)
		return s
	}
	end := func(s *broker.Session) protocol.Code {
		for {
			frames, err := s.Take(nil)
			if err != nil {
				return err.Code
			}
			if len(frames) == 0 {
				return ""
			}
		}
	}
	late := session(before.access.keys[0].identity)
	e.reviewLate(late, before)
	if code := end(late); code != "" {
		t.Errorf("without a reload: %s", code)
	}
	after := guarded()
	after.APIKeys[0].Key = "twk_some-other-key-than-the-first"
	if err := e.Reload(after, Limits{}); err != nil {
		t.Fatal(err)
	}
	e.reviewLate(late, before)
	if code := end(late); code != protocol.CodeUnauthorized {
		t.Errorf("the key has gone: %q", code)
	}
	early := session(e.access().keys[0].identity)
	e.reviewLate(early, before)
	if code := end(early); code != "" {
		t.Errorf("a session of the new rules: %s", code)
	}
}
