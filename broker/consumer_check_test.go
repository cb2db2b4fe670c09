package broker_test

import (
	"fmt"
	"testing"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// CheckConsumer says what PutConsumer would, and does nothing.
func TestCheckConsumer(t *testing.T) {
	s := openShop(t, "")
	req := func(filter, stream, from string, settings *tidewirev1.ConsumerSettings) *broker.ConsumerRequest {
		return &broker.ConsumerRequest{Filter: filter, Stream: stream, From: from, Settings: settings}
	}
	if _, _, err := s.broker.PutConsumer(t.Context(), "w", req("a.>", "", "", nil)); err != nil {
		t.Fatal(err)
	}
	before := s.info()
	yes, seven, none := true, uint32(7), uint32(0)
	for i, c := range []struct {
		name string
		req  *broker.ConsumerRequest
		code protocol.Code
	}{
		{"w", req("b", "", "", nil), protocol.CodeConsumerExists},
		{"w", req("a.>", "dead", "", nil), protocol.CodeConsumerExists},
		{"w", req("a.>", "", "", &tidewirev1.ConsumerSettings{Exclusive: &yes}), protocol.CodeConsumerFixed},
		{"w", req("a.>", "", "", &tidewirev1.ConsumerSettings{MaxDeliver: &none}), protocol.CodeBadRequest},
		{"w", req("a.>", "main", "nonsense", &tidewirev1.ConsumerSettings{MaxDeliver: &seven}), ""},
		{"x.y", req("a", "", "", nil), protocol.CodeBadRequest},
		{"x", req("a..b", "", "", nil), protocol.CodeInvalidFilter},
		{"x", req("$redrive.w", "", "", nil), protocol.CodeForbidden},
		{"x", req("a", "elsewhere", "", nil), protocol.CodeUnknownStream},
		{"x", req("a", "", "nonsense", nil), protocol.CodeInvalidStart},
		{"x", req("a", "", "last-per-topic", nil), protocol.CodeInvalidStart},
		{"x", req("a", "", "", &tidewirev1.ConsumerSettings{MaxDeliver: &none}), protocol.CodeBadRequest},
		{"x", req("a", "", "new", &tidewirev1.ConsumerSettings{MaxDeliver: &seven}), ""},
	} {
		checked := s.broker.CheckConsumer(c.name, c.req)
		if now := s.info(); now.Settings != before.Settings || len(s.broker.Consumers()) != 1 {
			t.Fatalf("%d: a check has changed something: %+v", i, now.Settings)
		}
		if code := codeOf(checked); code != c.code {
			t.Errorf("%d: %v, want the code %q", i, checked, c.code)
		}
		if checked == nil {
			continue
		}
		if _, _, put := s.broker.PutConsumer(t.Context(), c.name, c.req); fmt.Sprint(put) != fmt.Sprint(checked) {
			t.Errorf("%d: the check says %v, the put %v", i, checked, put)
		}
	}
}

func codeOf(err *protocol.Error) protocol.Code {
	if err == nil {
		return ""
	}
	return err.Code
}
