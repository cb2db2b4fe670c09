package tidewire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

func batchOf(n int) []Message {
	list := make([]Message, n)
	for i := range list {
		list[i] = Message{Topic: "a.b", ID: fmt.Sprint("m", i), Payload: []byte("x")}
	}
	return list
}

// A batch is larger than the outbox, the connection is lost in its midst, some of
// its messages are refused: the rest is stored, in order, and each has its own
// receipt or error.
func TestPublishBatch(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{OutboxMessages: 5})
		var order []string
		offsets := map[string]uint64{}
		store := func(f *protocol.Publish) *protocol.Published {
			answer := &protocol.Published{}
			for i, m := range f.Messages {
				r := protocol.PublishResult{Ref: f.Ref + uint32(i)}
				if m.ID == "m7" {
					r.Err = protocol.Errorf(protocol.CodeIDConflict, "used")
				} else {
					if offsets[m.ID] == 0 {
						order = append(order, m.ID)
						offsets[m.ID] = uint64(len(order))
					} else {
						r.Duplicate = true
					}
					r.Position = protocol.Position{Term: testTerm, Offset: offsets[m.ID]}
				}
				answer.Results = append(answer.Results, r)
			}
			return answer
		}
		go func() {
			store(expect2publish(p)) // the answer is lost
			p.cut()
			p, _ := b.welcome()
			for {
				select {
				case f := <-p.frames:
					if f, ok := f.(*protocol.Publish); ok {
						p.send(store(f))
					}
				case <-p.gone:
					return
				}
			}
		}()
		messages := batchOf(20)
		messages[3].Topic = "a..b"
		receipts, err := c.PublishBatch(t.Context(), messages)
		failed, ok := errors.AsType[*BatchError](err)
		if !ok || len(receipts) != 20 || len(failed.Errs) != 20 {
			t.Fatal(receipts, err)
		}
		var want []string
		for i, r := range receipts {
			code := Code("")
			if e, ok := errors.AsType[*Error](failed.Errs[i]); ok {
				code = e.Code
			}
			switch i {
			case 3, 7:
				if code != map[int]Code{3: CodeInvalidTopic, 7: CodeIDConflict}[i] || r != (Receipt{}) {
					t.Errorf("message %d: %v, %v", i, r, failed.Errs[i])
				}
			default:
				id := fmt.Sprint("m", i)
				want = append(want, id)
				if failed.Errs[i] != nil || r.ID != id || r.Position.Offset != offsets[id] {
					t.Errorf("message %d: %v, %v", i, r, failed.Errs[i])
				}
			}
		}
		if got := strings.Join(order, " "); got != strings.Join(want, " ") {
			t.Errorf("stored in the order %s", got)
		}
		if !receipts[0].Duplicate {
			t.Error("what was repeated is no duplicate")
		}
		if !strings.Contains(err.Error(), "2 of 20 messages") || !strings.Contains(err.Error(), "message 3") || len(failed.Unwrap()) != 2 {
			t.Error(err)
		}
		if receipts, err := c.PublishBatch(t.Context(), nil); len(receipts) != 0 || err != nil {
			t.Error(receipts, err)
		}
	})
}

// When ctx ends, each message says what became of it: stored, perhaps stored, not
// sent. None of them is repeated afterwards.
func TestPublishBatchCancelled(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{OutboxMessages: 6})
		go func() {
			for n := 0; n < 2; { // the first two are answered, the next four are in flight then
				f := expect2publish(p)
				answer := accepted(f, 1)
				answer.Results = answer.Results[:min(len(answer.Results), 2-n)]
				n += len(answer.Results)
				p.send(answer)
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		receipts, err := c.PublishBatch(ctx, batchOf(12))
		failed, ok := errors.AsType[*BatchError](err)
		if !ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		got := ""
		for i, err := range failed.Errs {
			_, unknown := errors.AsType[*UnknownOutcomeError](err)
			switch {
			case err == nil && receipts[i].Position.Offset > 0:
				got += "s"
			case unknown:
				got += "u"
			case strings.Contains(err.Error(), "was not sent"):
				got += "n"
			default:
				t.Errorf("message %d: %v", i, err)
			}
		}
		if got != "ssuuuunnnnnn" {
			t.Fatal(got)
		}
		synctest.Wait()
		p.cut()
		p, _ = b.welcome()
		synctest.Wait()
		if n := len(p.frames); n != 0 {
			t.Fatalf("%d frames come after the end", n)
		}
	})
}
