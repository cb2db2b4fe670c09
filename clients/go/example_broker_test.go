package tidewire_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/lxzan/gws"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// aBroker is just enough of a broker for an example: it remembers one message.
type aBroker struct {
	gws.BuiltinEventHandler
	record []byte
}

func exampleBroker() *aBroker { return &aBroker{} }

func (b *aBroker) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		r := bufio.NewReader(far)
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if request.URL.Path != "/v1/ws" {
			b.history(far, request)
			return
		}
		up := gws.NewUpgrader(b, &gws.ServerOption{SubProtocols: []string{protocol.SubprotocolProto}})
		if socket, err := up.UpgradeFromConn(far, r, request); err == nil {
			socket.ReadLoop()
		}
	}()
	return near, nil
}

// history answers with the message, and after it with nothing.
func (b *aBroker) history(conn net.Conn, r *http.Request) {
	body := `{"messages":[],"next":"p25-1"}`
	if r.URL.Query().Get("from") != "p25-1" {
		body = `{"messages":[{"id":"1","topic":"room.42.chat","position":"p25-1","time":"2026-01-02T15:04:05Z","payload":"hello"}],"next":"p25-1"}`
	}
	answer := http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)), Close: true}
	_ = answer.Write(conn)
	_ = conn.Close()
}

func (b *aBroker) OnMessage(socket *gws.Conn, m *gws.Message) {
	frame, _ := protocol.Proto{}.DecodeClient(m.Bytes(), protocol.FrameLimits{Messages: 10, Subscriptions: 10})
	place := protocol.Position{Term: 77, Offset: 1}
	send := func(f any) { _ = socket.WriteMessage(gws.OpcodeBinary, protocol.Proto{}.AppendServer(nil, f)) }
	switch f := frame.(type) {
	case *tidewirev1.Connect:
		send(&tidewirev1.Welcome{PingIntervalMs: 25_000, PingTimeoutMs: 10_000})
	case *protocol.Publish:
		answers := &protocol.Published{}
		for i, message := range f.Messages {
			message.Position = place
			b.record = protocol.AppendFramed(nil, protocol.AppendRecord(nil, &message))
			answers.Results = append(answers.Results, protocol.PublishResult{Ref: f.Ref + uint32(i), Position: place})
		}
		send(answers)
	case *protocol.Settle:
		send(&tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub, Settled: 1})
	case *tidewirev1.Subscribe:
		send(&tidewirev1.Subscribed{Sub: f.Sub, Position: "p25-0", Cursors: []*tidewirev1.Cursor{{}}, Generation: 1})
		chunk := protocol.Chunk{Term: 77, Through: 1, Count: 1, Records: b.record}
		if f.Consumer != "" {
			chunk.Through, chunk.Generation, chunk.Attempts = 0, 1, []uint32{1}
		}
		tail := protocol.Proto{}.AppendDeliverTail(nil, &chunk)
		head := protocol.Proto{}.AppendDeliverHead(nil, f.Sub, len(tail))
		_ = socket.WriteMessage(gws.OpcodeBinary, append(head, tail...))
	}
}
