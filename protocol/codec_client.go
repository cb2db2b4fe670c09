package protocol

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// Deliver is the frame that carries messages, as a client reads it.
type Deliver struct {
	Sub uint32
	Chunk
}

// AppendClient appends a frame of a client: *Publish, *Settle or one of
// *tidewirev1.Connect, Subscribe, Unsubscribe, Pong, Refresh and Flow.
func (Proto) AppendClient(b []byte, frame any) []byte {
	switch f := frame.(type) {
	case *Publish:
		return appendPublish(b, f)
	case *Settle:
		return appendSettle(b, f)
	}
	return marshalAppend(b, clientFrame(frame))
}

func clientFrame(frame any) *tidewirev1.ClientFrame {
	switch f := frame.(type) {
	case *tidewirev1.Connect:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Connect{Connect: f}}
	case *tidewirev1.Subscribe:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Subscribe{Subscribe: f}}
	case *tidewirev1.Unsubscribe:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Unsubscribe{Unsubscribe: f}}
	case *tidewirev1.Pong:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Pong{Pong: f}}
	case *tidewirev1.Refresh:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Refresh{Refresh: f}}
	case *tidewirev1.Flow:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Flow{Flow: f}}
	default:
		panic("protocol: not a frame of a client")
	}
}

func appendPublish(b []byte, p *Publish) []byte {
	var body []byte
	body = appendUint(body, 1, uint64(p.Ref))
	var message []byte
	for i := range p.Messages {
		message = appendContent(message[:0], &p.Messages[i])
		body = protowire.AppendTag(body, 2, protowire.BytesType)
		body = protowire.AppendBytes(body, message)
	}
	if p.Resume {
		body = appendUint(body, 3, 1)
	}
	body = appendUint(body, 4, uint64(max(p.RepeatAge.Milliseconds(), 0)))
	b = protowire.AppendTag(b, clientPublish, protowire.BytesType)
	return protowire.AppendBytes(b, body)
}

// DecodeServer reads a ServerFrame: *Deliver, *Published, or one of the other
// generated structs; nil for a frame that this version does not know. Nothing
// of b is kept.
func (Proto) DecodeServer(b []byte) (any, error) {
	num, body, err := outerField(b, lastServerFrame)
	if err != nil {
		return nil, err
	}
	if num == serverDeliver {
		return decodeDeliver(body)
	}
	var f tidewirev1.ServerFrame
	if err := unmarshal(b, &f); err != nil {
		return nil, err
	}
	switch f := f.Frame.(type) {
	case *tidewirev1.ServerFrame_Welcome:
		return f.Welcome, nil
	case *tidewirev1.ServerFrame_Published:
		return decodePublished(f.Published)
	case *tidewirev1.ServerFrame_Subscribed:
		return f.Subscribed, nil
	case *tidewirev1.ServerFrame_CaughtUp:
		return f.CaughtUp, nil
	case *tidewirev1.ServerFrame_Gap:
		return f.Gap, nil
	case *tidewirev1.ServerFrame_Progress:
		return f.Progress, nil
	case *tidewirev1.ServerFrame_GoAway:
		return f.GoAway, nil
	case *tidewirev1.ServerFrame_Ping:
		return f.Ping, nil
	case *tidewirev1.ServerFrame_Error:
		return f.Error, nil
	case *tidewirev1.ServerFrame_Unsubscribed:
		return f.Unsubscribed, nil
	case *tidewirev1.ServerFrame_Refreshed:
		return f.Refreshed, nil
	case *tidewirev1.ServerFrame_Acked:
		return f.Acked, nil
	default:
		return nil, nil
	}
}

func decodePublished(f *tidewirev1.Published) (*Published, error) {
	p := &Published{Results: make([]PublishResult, 0, len(f.Results))}
	for _, r := range f.Results {
		result := PublishResult{Ref: r.Ref, Duplicate: r.Duplicate, Err: FrameError(r.Error)}
		if r.Offset != 0 {
			text := r.Term
			if text == "" {
				text = f.Term
			}
			term, err := wireTerm(text)
			if err != nil {
				return nil, err
			}
			result.Position = Position{Term: term, Partition: r.Partition, Offset: r.Offset}
		}
		p.Results = append(p.Results, result)
	}
	return p, nil
}

func decodeDeliver(b []byte) (*Deliver, error) {
	d := &Deliver{}
	d.Records = make([]byte, 0, len(b))
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return nil, badFrame(errNotProtobuf)
		}
		if err := d.setField(f); err != nil {
			return nil, err
		}
		b = rest
	}
	return d, nil
}

func (d *Deliver) setField(f field) error {
	switch f.typ {
	case protowire.VarintType:
		d.setVarint(f.num, f.varint())
	case protowire.BytesType:
		return d.setBytes(f.num, f.bytes())
	}
	return nil
}

func (d *Deliver) setVarint(num protowire.Number, v uint64) {
	switch num {
	case 1:
		d.Sub = uint32(v)
	case 2:
		d.Partition = uint32(v)
	case 4:
		d.After = v
	case 5:
		d.Through = v
	case fieldAttempts: // one for itself, as protobuf allows
		d.Attempts = append(d.Attempts, uint32(v))
	case fieldDelivered:
		d.Generation = v
	}
}

func (d *Deliver) setBytes(num protowire.Number, v []byte) error {
	switch num {
	case 3:
		term, err := wireTerm(string(v))
		if err != nil {
			return err
		}
		d.Term = term
	case fieldRecords:
		d.Records = AppendFramed(d.Records, v) // anew: lengths may be padded
		d.Count++
	case fieldAttempts:
		for len(v) > 0 {
			n, size := protowire.ConsumeVarint(v)
			if size < 0 {
				return badFrame(errNotProtobuf)
			}
			d.Attempts = append(d.Attempts, uint32(n))
			v = v[size:]
		}
	}
	return nil
}

// wireTerm reads the term of a frame.
func wireTerm(text string) (Term, *Error) {
	term, ok := ParseTerm(text)
	if !ok {
		return 0, Errorf(CodeBadFrame, "the frame cannot be read: %s is not a term", quote(text))
	}
	return term, nil
}

// Time converts a time of the wire, microseconds since 1970; 0 is the zero
// time.
func Time(micros uint64) time.Time { return fromMicros(micros) }

// Micros converts a time to what the wire carries; the zero time is 0.
func Micros(t time.Time) uint64 { return micros(t) }
