package protocol

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// Field numbers of ClientFrame and ServerFrame that are written or read by
// hand.
const (
	clientConnect   = 1
	clientPublish   = 2
	clientAck       = 8 // Nack, Extend and Reject follow
	clientReject    = 11
	serverPublished = 2
	serverDeliver   = 4

	// The numbers up to these are frames or kept for frames.
	lastClientFrame = 15
	lastServerFrame = 19
)

// Proto is the binary codec, subprotocol tidewire.v1.proto. Besides serving a
// broker it can write what a client sends and read what it receives.
type Proto struct{}

// Subprotocol returns [SubprotocolProto].
func (Proto) Subprotocol() string { return SubprotocolProto }

// DecodeClient reads a ClientFrame.
func (Proto) DecodeClient(b []byte, limits FrameLimits) (any, error) {
	num, body, err := outerField(b, lastClientFrame)
	if err != nil {
		return nil, err
	}
	switch num {
	case clientPublish:
		return decodePublish(body, limits)
	case clientConnect:
		if err := checkConnect(countField(body, 4), countField(body, 3), limits); err != nil {
			return nil, &RequestError{Request: "connect", Ref: uint32(lastVarint(body, 1)), Err: err}
		}
	}
	if num >= clientAck && num <= clientReject {
		return decodeSettle(SettleKind(num-clientAck), body)
	}
	var f tidewirev1.ClientFrame
	if err := unmarshal(b, &f); err != nil {
		return nil, err
	}
	switch f := f.Frame.(type) {
	case *tidewirev1.ClientFrame_Connect:
		return f.Connect, nil
	case *tidewirev1.ClientFrame_Subscribe:
		return f.Subscribe, nil
	case *tidewirev1.ClientFrame_Unsubscribe:
		return f.Unsubscribe, nil
	case *tidewirev1.ClientFrame_Pong:
		return f.Pong, nil
	case *tidewirev1.ClientFrame_Refresh:
		return f.Refresh, nil
	case *tidewirev1.ClientFrame_Flow:
		return f.Flow, nil
	default:
		return nil, nil
	}
}

var (
	errNotProtobuf = errors.New("it is not a frame in the encoding of protobuf")
	errNotOneFrame = errors.New("send exactly one frame in each WebSocket message")
	errNotUTF8     = errors.New("one of its texts is not valid UTF-8")
)

// outerField returns the frame inside a ClientFrame or ServerFrame, whose
// frames have the numbers up to last; 0 if there are only fields beyond, which
// a later version may add beside the frame. More than one frame is refused:
// merging them, as protobuf would, has no meaning here.
func outerField(b []byte, last protowire.Number) (protowire.Number, []byte, error) {
	if len(b) == 0 {
		return 0, nil, badFrame(errNotOneFrame)
	}
	var found protowire.Number
	var body []byte
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return 0, nil, badFrame(errNotProtobuf)
		}
		if f.num <= last {
			if found != 0 || f.typ != protowire.BytesType {
				return 0, nil, badFrame(errNotOneFrame)
			}
			found, body = f.num, f.bytes()
		}
		b = rest
	}
	return found, body, nil
}

// unmarshal reads a frame into its generated struct. Unknown fields are
// dropped: kept, they would stay in memory with the session.
func unmarshal(b []byte, f proto.Message) error {
	err := proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, f)
	if err == nil {
		return nil
	}
	if strings.Contains(err.Error(), "UTF-8") { // protobuf has no error value for it
		return badFrame(errNotUTF8)
	}
	return badFrame(errNotProtobuf)
}

func decodePublish(b []byte, limits FrameLimits) (any, error) {
	count := countField(b, 2)
	p := &Publish{}
	if count <= limits.Messages {
		p.Messages = make([]Message, 0, count)
	}
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return nil, badFrame(errNotProtobuf)
		}
		if err := p.setField(f, count <= limits.Messages); err != nil {
			return nil, badFrame(err)
		}
		b = rest
	}
	if err := checkPublish(count, limits); err != nil {
		return nil, &RequestError{Request: "publish", Ref: p.Ref, Err: err}
	}
	return p, nil
}

func (p *Publish) setField(f field, messages bool) error {
	if f.typ == protowire.VarintType {
		switch f.num {
		case 1:
			p.Ref = uint32(f.varint())
		case 3:
			p.Resume = f.varint() != 0
		case 4:
			p.RepeatAge = repeatAge(f.varint())
		}
		return nil
	}
	if f.num != 2 || f.typ != protowire.BytesType || !messages {
		return nil
	}
	m, err := ParseRecord(f.bytes())
	if err != nil {
		return err
	}
	m.Publisher, m.Position, m.Time, m.Origin = "", Position{}, time.Time{}, 0
	p.Messages = append(p.Messages, m)
	return nil
}

// AppendServer appends a ServerFrame.
func (Proto) AppendServer(b []byte, frame any) []byte {
	switch f := frame.(type) {
	case *Published:
		return appendPublished(b, f)
	case *Progress:
		frame = f.frame()
	}
	return marshalAppend(b, serverFrame(frame))
}

// marshalAppend appends a frame. Text that is not UTF-8, which protobuf does
// not write, is repaired: it is better to be asked what '\uFFFD' means than to
// die of a word in some error.
func marshalAppend(b []byte, f proto.Message) []byte {
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, f)
	if err == nil {
		return out
	}
	f = proto.Clone(f)
	repairTexts(f.ProtoReflect())
	out, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, f)
	if err != nil {
		panic("protocol: " + err.Error())
	}
	return out
}

// repairTexts replaces what is not UTF-8 in all texts of a frame.
func repairTexts(m protoreflect.Message) {
	text := func(v protoreflect.Value) protoreflect.Value {
		return protoreflect.ValueOfString(strings.ToValidUTF8(v.String(), "\uFFFD"))
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		texts, frames := field.Kind() == protoreflect.StringKind, field.Kind() == protoreflect.MessageKind
		switch {
		case field.IsList() && texts:
			for i := range v.List().Len() {
				v.List().Set(i, text(v.List().Get(i)))
			}
		case field.IsList() && frames:
			for i := range v.List().Len() {
				repairTexts(v.List().Get(i).Message())
			}
		case texts:
			m.Set(field, text(v))
		case frames:
			repairTexts(v.Message())
		}
		return true
	})
}

func serverFrame(frame any) *tidewirev1.ServerFrame {
	switch f := frame.(type) {
	case *tidewirev1.Welcome:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Welcome{Welcome: f}}
	case *tidewirev1.Subscribed:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Subscribed{Subscribed: f}}
	case *tidewirev1.CaughtUp:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_CaughtUp{CaughtUp: f}}
	case *tidewirev1.Gap:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Gap{Gap: f}}
	case *tidewirev1.Progress:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Progress{Progress: f}}
	case *tidewirev1.GoAway:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_GoAway{GoAway: f}}
	case *tidewirev1.Ping:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Ping{Ping: f}}
	case *tidewirev1.Error:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Error{Error: f}}
	case *tidewirev1.Unsubscribed:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Unsubscribed{Unsubscribed: f}}
	case *tidewirev1.Refreshed:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Refreshed{Refreshed: f}}
	case *tidewirev1.Acked:
		return &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Acked{Acked: f}}
	default:
		panic("protocol: not a frame of the server")
	}
}

func appendPublished(b []byte, p *Published) []byte {
	var term Term // of most positions: that of the first which has one
	for i := 0; i < len(p.Results) && term == 0; i++ {
		term = p.Results[i].Position.Term
	}
	size := 0
	if term != 0 {
		size = textSize(term.String())
	}
	for i := range p.Results {
		size += 1 + protowire.SizeBytes(resultSize(&p.Results[i], term))
	}
	b = protowire.AppendTag(b, serverPublished, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	if term != 0 {
		b = appendText(b, 1, term.String())
	}
	for i := range p.Results {
		r := &p.Results[i]
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(resultSize(r, term)))
		b = appendResult(b, r, term)
	}
	return b
}

// resultSize is the size of what appendResult appends.
func resultSize(r *PublishResult, term Term) int {
	size := uintSize(uint64(r.Ref)) + uintSize(uint64(r.Position.Partition)) + uintSize(r.Position.Offset)
	if r.Duplicate {
		size += 2
	}
	if r.Err != nil {
		size += 1 + protowire.SizeBytes(proto.Size(ErrorFrame(0, 0, r.Err)))
	}
	if r.Position.Term != 0 && r.Position.Term != term {
		size += textSize(r.Position.Term.String())
	}
	return size
}

func appendResult(b []byte, r *PublishResult, term Term) []byte {
	b = appendUint(b, 1, uint64(r.Ref))
	b = appendUint(b, 2, uint64(r.Position.Partition))
	b = appendUint(b, 3, r.Position.Offset)
	if r.Duplicate {
		b = appendUint(b, 4, 1)
	}
	if r.Err != nil {
		b = protowire.AppendTag(b, 5, protowire.BytesType)
		b = protowire.AppendBytes(b, marshalAppend(nil, ErrorFrame(0, 0, r.Err)))
	}
	if r.Position.Term != 0 && r.Position.Term != term {
		b = appendText(b, 6, r.Position.Term.String())
	}
	return b
}

// AppendDeliverHead appends the part of a Deliver frame that differs from one
// subscription to the next.
func (Proto) AppendDeliverHead(b []byte, sub uint32, tailSize int) []byte {
	b = protowire.AppendTag(b, serverDeliver, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(uintSize(uint64(sub))+tailSize))
	return appendUint(b, 1, uint64(sub))
}

// AppendDeliverTail appends the part of a Deliver frame that all subscriptions
// share.
func (Proto) AppendDeliverTail(b []byte, c *Chunk) []byte {
	b = appendUint(b, 2, uint64(c.Partition))
	if !c.Ephemeral() {
		b = appendText(b, 3, c.Term.String())
	}
	b = appendUint(b, 4, c.After)
	b = appendUint(b, 5, c.Through)
	b = append(b, c.Records...)
	return appendAttempts(b, c)
}

// Placed reports false: clients keep a cursor for each partition.
func (Proto) Placed() bool { return false }

// appendAttempts appends what a Deliver frame of a consumer has besides.
func appendAttempts(b []byte, c *Chunk) []byte {
	if len(c.Attempts) > 0 {
		size := 0
		for _, n := range c.Attempts {
			size += protowire.SizeVarint(uint64(n))
		}
		b = protowire.AppendTag(b, fieldAttempts, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
		for _, n := range c.Attempts {
			b = protowire.AppendVarint(b, uint64(n))
		}
	}
	return appendUint(b, fieldDelivered, c.Generation)
}

func badFrame(err error) *Error {
	return Errorf(CodeBadFrame, "the frame cannot be read: %v", err)
}
