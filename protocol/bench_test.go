package protocol

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

func benchMessages(n int) []Message {
	all := make([]Message, n)
	for i := range all {
		payload := make([]byte, 128)
		for j := range payload {
			payload[j] = 'a' + byte(j%26)
		}
		all[i] = Message{Topic: "room.42.chat", ID: fmt.Sprintf("%016x", i), Payload: payload}
	}
	return all
}

func BenchmarkDecodePublish(b *testing.B) {
	for _, n := range []int{1, 100} {
		p := &Publish{Ref: 1, Messages: benchMessages(n)}
		text, err := json.Marshal(map[string]any{"type": "publish", "ref": 1, "messages": p.Messages})
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range []struct {
			codec Codec
			frame []byte
		}{{Proto{}, Proto{}.AppendClient(nil, p)}, {JSON{}, text}} {
			b.Run(fmt.Sprintf("%s/%d", c.codec.Subprotocol(), n), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(c.frame)))
				for b.Loop() {
					if _, err := c.codec.DecodeClient(c.frame, testLimits); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkAppendRecord(b *testing.B) {
	m := benchMessages(1)[0]
	buffer := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		AppendRecord(buffer, &m)
	}
}

func BenchmarkParseRecord(b *testing.B) {
	record := AppendRecord(nil, &benchMessages(1)[0])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRecord(record); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendDeliverTail(b *testing.B) {
	c := &Chunk{Term: NewTerm(), Through: 100, Count: 100}
	for i, m := range benchMessages(100) {
		m.Position.Offset, m.Time = uint64(1+i), time.Unix(1767366245, 0)
		c.Records = AppendFramed(c.Records, AppendRecord(nil, &m))
	}
	for _, codec := range []Codec{Proto{}, JSON{}} {
		b.Run(codec.Subprotocol(), func(b *testing.B) {
			buffer := make([]byte, 0, 1<<16)
			b.ReportAllocs()
			for b.Loop() {
				codec.AppendDeliverTail(buffer, c)
			}
		})
	}
}

func BenchmarkPublished(b *testing.B) {
	p, term := &Published{}, NewTerm()
	for i := range 100 {
		p.Results = append(p.Results, PublishResult{Ref: uint32(i), Position: Position{Term: term, Offset: uint64(1000 + i)}})
	}
	for _, codec := range []Codec{Proto{}, JSON{}} {
		b.Run(codec.Subprotocol(), func(b *testing.B) {
			buffer := make([]byte, 0, 1<<16)
			b.ReportAllocs()
			for b.Loop() {
				codec.AppendServer(buffer, p)
			}
		})
	}
}

func BenchmarkFilterMatch(b *testing.B) {
	f := mustFilter(b, "room.*.>")
	b.ReportAllocs()
	for b.Loop() {
		f.Match("room.42.chat")
	}
}
