package server

import (
	"bytes"
	"crypto/sha256"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

// Reload puts other rules into effect. If they make no sense, nothing changes.
//
// Limits hold from now on; connections that are open stay, and keep the frame
// size of their handshake. Sessions keep their rights as far as the new rules
// give them: those whose key has gone, or who are anonymous where nobody may be,
// are closed; those with a token are asked to come back with another one if what
// tokens are checked by has changed.
func (s *Server) Reload(a Access, l Limits) error {
	now, err := newRules(a, l, s.options.Dev)
	if err != nil {
		return err
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	before := s.rules.Swap(now)
	for _, c := range s.connections() {
		s.review(c.session, before, now)
	}
	for _, session := range s.streams.sessions() {
		s.review(session, before, now)
	}
	return nil
}

// reviewLate is for a session that was let in by rules that may have gone before
// Reload could find it.
func (s *Server) reviewLate(session *broker.Session, before *rules) {
	if s.rules.Load() == before {
		return
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.review(session, before, s.rules.Load())
}

// review gives a session the rights that it has by other rules, or ends it.
func (s *Server) review(session *broker.Session, before, now *rules) {
	id := session.Identity()
	if now.access.made(id) {
		return
	}
	if hash, ok := before.access.hashOf(id); ok {
		if other := now.access.byHash(hash); other != nil && other.Subject == id.Subject {
			session.SetIdentity(other)
			return
		}
		session.End(protocol.Errorf(protocol.CodeUnauthorized, "the API key is not valid any more"))
		return
	}
	if id == before.access.anonymous {
		if now.access.anonymous != nil {
			session.SetIdentity(now.access.anonymous)
			return
		}
		session.End(protocol.Errorf(protocol.CodeUnauthorized, "a token is needed now"))
		return
	}
	if !bytes.Equal(before.access.secret, now.access.secret) || before.access.claimed != now.access.claimed {
		session.End(protocol.Errorf(protocol.CodeTokenExpired, "tokens are checked in another way now: come back with a new one"))
	}
}

// made reports whether an identity stands in the rules: that of a key, or the
// anonymous one.
func (a *access) made(id *broker.Identity) bool {
	_, ok := a.hashOf(id)
	return ok || id == a.anonymous
}

func (a *access) hashOf(id *broker.Identity) (hash [sha256.Size]byte, ok bool) {
	for i := range a.keys {
		if a.keys[i].identity == id {
			return a.keys[i].hash, true
		}
	}
	return hash, false
}

func (a *access) byHash(hash [sha256.Size]byte) *broker.Identity {
	for i := range a.keys {
		if a.keys[i].hash == hash {
			return a.keys[i].identity
		}
	}
	return nil
}
