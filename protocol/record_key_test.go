package protocol

import (
	"strings"
	"testing"
	"time"
)

func TestRecordKey(t *testing.T) {
	for _, m := range []Message{
		{Topic: "a"},
		{Topic: "a", Key: "k"},
		{Topic: "a.b", ID: "1", Payload: []byte(strings.Repeat("2", 1000)), ContentType: "t", Headers: []Header{{"x", "y"}, {"z", strings.Repeat("v", 300)}}, Key: strings.Repeat("key", 70), ExpiresAt: time.UnixMicro(77), Publisher: "p"},
		{Topic: "a", ExpiresAt: time.UnixMicro(77)},
		{Topic: "a", Publisher: "2222"},
	} {
		record := AppendRecord(nil, &m)
		if got := string(RecordKey(record)); got != m.Key {
			t.Errorf("key %q of a message with %q", got, m.Key)
		}
		for i := range record { // a part of one must do no harm
			RecordKey(record[:i])
		}
	}
}
