package storage

import "github.com/tidewire/tidewire/protocol"

// An Order keeps the messages of one publisher in order over refusals: after
// one was refused in a way that invites a repeat, those behind it must not be
// stored before it. Only the log uses it, once entries carry it. The zero
// Order is ready for use.
type Order struct {
	broken bool // a retryable refusal, and no resume since
}

// Admit returns why the entry must be refused for the sake of order, or nil.
func (o *Order) Admit(resume bool) *protocol.Error {
	if o == nil {
		return nil
	}
	if resume {
		o.broken = false
	}
	if !o.broken {
		return nil
	}
	return protocol.Errorf(protocol.CodeOutOfOrder, "an earlier message of this connection was refused: repeat from that one on, with `resume`")
}

// Refused notes why an entry was refused.
func (o *Order) Refused(err *protocol.Error) {
	if o != nil && err.Retryable() {
		o.broken = true
	}
}
