package tidewire_test

import (
	"bufio"
	"context"
	"net"
	"net/http"

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
		up := gws.NewUpgrader(b, &gws.ServerOption{SubProtocols: []string{protocol.SubprotocolProto}})
		if socket, err := up.UpgradeFromConn(far, r, request); err == nil {
			socket.ReadLoop()
		}
	}()
	return near, nil
}

func (b *aBroker) OnMessage(socket *gws.Conn, m *gws.Message) {
	frame, _ := protocol.Proto{}.DecodeClient(m.Bytes(), protocol.FrameLimits{Messages: 10, Subscriptions: 10})
	place := protocol.Position{Term: 77, Offset: 1}
	send := func(f any) { _ = socket.WriteMessage(gws.OpcodeBinary, protocol.Proto{}.AppendServer(nil, f)) }
	switch f := frame.(type) {
	case *tidewirev1.Connect:
		send(&tidewirev1.Welcome{PingIntervalMs: 25_000, PingTimeoutMs: 10_000})
	case *protocol.Publish:
		message := f.Messages[0]
		message.Position = place
		b.record = protocol.AppendFramed(nil, protocol.AppendRecord(nil, &message))
		send(&protocol.Published{Results: []protocol.PublishResult{{Ref: f.Ref, Position: place}}})
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
