package protocol

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// published is what arrives at the broker of a message that was published.
func published(m Message) Message {
	m.Publisher, m.Position, m.Time = "", Position{}, time.Time{}
	if len(m.Payload) == 0 {
		m.Payload = nil
	}
	if len(m.Headers) == 0 {
		m.Headers = nil
	}
	if !m.ExpiresAt.IsZero() {
		m.ExpiresAt = m.ExpiresAt.UTC().Truncate(time.Microsecond)
	}
	return m
}

// TestWhatIsPrintedCanBePublished sends random messages through the JSON form
// and back: what `sub --json` prints can be published again.
func TestWhatIsPrintedCanBePublished(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		m := randomMessage(r)
		if err := m.Check(1 << 20); err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		m.Publisher, m.Position, m.Time = randomText(r, 10), randomPosition(r), time.UnixMicro(r.Int64N(maxMicros)).UTC()
		text, err := m.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(string(text), "\n\r\u2028\u2029") {
			t.Fatalf("%s breaks a line", text)
		}
		var got Message
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if want := published(m); !reflect.DeepEqual(published(got), want) {
			t.Fatalf("%s\n gives %+v\nwant %+v", text, got, want)
		}
		again, err := json.Marshal(m) // as a part of something else
		if err != nil || !json.Valid(again) {
			t.Fatalf("json.Marshal: %s, %v", again, err)
		}
	}
}

func TestMessageJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 15, 4, 5, 6000, time.FixedZone("", 3600))
	m := Message{
		Topic: "a.b", ID: "1", Payload: []byte("<&>\u2028\x00\""), ContentType: "text/plain", Key: "k",
		Headers: []Header{{"a", "1"}, {"b", "é"}}, ExpiresAt: at, Ephemeral: true, Publisher: "me",
		Position: Position{Term: 35, Offset: 7}, Time: at,
	}
	want := `{"id":"1","topic":"a.b","position":"pz-7","time":"2026-01-02T14:04:05.000006Z","publisher":"me","key":"k","content_type":"text/plain",` +
		`"headers":{"a":"1","b":"é"},"expires_at":"2026-01-02T14:04:05.000006Z","ephemeral":true,"payload":"<&>\u2028\u0000\""}`
	if got, err := m.MarshalJSON(); err != nil || string(got) != want {
		t.Errorf("got  %s\nwant %s, %v", got, want, err)
	}
	for want, m := range map[string]Message{
		`{"topic":"a","payload":""}`:             {Topic: "a"},
		`{"topic":"a","payload_base64":"/w=="}`:  {Topic: "a", Payload: []byte{0xff}},
		`{"topic":"a","payload_base64":"7aCA"}`:  {Topic: "a", Payload: []byte("\xed\xa0\x80")},
		`{"topic":"a","payload":"{\"a\":null}"}`: {Topic: "a", Payload: []byte(`{"a":null}`), ContentType: ""},
	} {
		if got, err := m.MarshalJSON(); err != nil || string(got) != want {
			t.Errorf("got  %s\nwant %s, %v", got, want, err)
		}
	}
}

func TestUnmarshalMessage(t *testing.T) {
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	for text, want := range map[string]Message{
		`{"payload":""}`:                                                      {},
		`{"topic":"a","payload":"x"}`:                                         {Topic: "a", Payload: []byte("x")},
		`{"topic":"a","payload":""}`:                                          {Topic: "a"},
		`{"topic":"a","payload_base64":"AP8="}`:                               {Topic: "a", Payload: []byte{0, 0xff}},
		`{"topic":"a","json":null}`:                                           {Topic: "a", Payload: []byte("null"), ContentType: "application/json"},
		`{"topic":"a","json": 1e400 }`:                                        {Topic: "a", Payload: []byte("1e400"), ContentType: "application/json"},
		`{"topic":"a","json":"` + "\u2028" + `\ud800","content_type":"x"}`:    {Topic: "a", Payload: []byte(`"` + "\u2028" + `\ud800"`), ContentType: "x"},
		`{"topic":"a","json":{"a":1,"a":2}}`:                                  {Topic: "a", Payload: []byte(`{"a":1,"a":2}`), ContentType: "application/json"},
		`{"topic":"a","json":` + deep + `}`:                                   {Topic: "a", Payload: []byte(deep), ContentType: "application/json"},
		`{"topic":"a","payload":"\u0000\u2028"}`:                              {Topic: "a", Payload: []byte("\x00\u2028")},
		`{"topic":"a","payload":"\\ud800"}`:                                   {Topic: "a", Payload: []byte(`\ud800`)},
		`{"topic":"a","payload":"\uD83D\uDE00\\"}`:                            {Topic: "a", Payload: []byte("\U0001f600\\")},
		`{"topic":"a","payload":"\ud83d\ude00"}`:                              {Topic: "a", Payload: []byte("\U0001f600")},
		`{"topic":"a","topic":"b","payload":""}`:                              {Topic: "b"},
		`{"topic":"a","headers":null,"payload":""}`:                           {Topic: "a"},
		`{"topic":"a","headers":{"b":"1","a":"2"},"payload":""}`:              {Topic: "a", Headers: []Header{{"b", "1"}, {"a", "2"}}},
		`{"topic":"a","expires_at":"2026-01-02T15:04:05+01:00","payload":""}`: {Topic: "a", ExpiresAt: time.Date(2026, 1, 2, 14, 4, 5, 0, time.UTC)},
		`{"topic":"a","time":5,"position":{},"publisher":[],"attempt":"x","generation":-1,"unknown":1e999,"payload":""}`: {Topic: "a"}, // ignored, whatever they are
	} {
		var got Message
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%.200s: %v", text, err)
		} else if !reflect.DeepEqual(published(got), want) {
			t.Errorf("%.200s\n gives %+v\n  want %+v", text, got, want)
		}
	}
}

func TestUnmarshalMessageRefuses(t *testing.T) {
	long := strings.Repeat("7", 5000)
	for text, says := range map[string]string{
		`[]`:                                    "the message is of the kind array, but must be an object",
		`"a"`:                                   "the message is of the kind string, but must be an object",
		long:                                    "the message is of the kind number, but must be an object",
		`{"topic":` + long + `}`:                `the field "topic" of the message is of the kind number, but must be a string`,
		`{"ephemeral":1}`:                       "must be true or false",
		`{"payload":{}}`:                        `the field "payload" of the message is of the kind object, but must be a string`,
		`{"payload_base64":[104,105]}`:          `the field "payload_base64" of the message is of the kind array, but must be a string`,
		`{"payload_base64":"?"}`:                "payload_base64 is not base64",
		`{"payload_base64":"/w"}`:               "payload_base64 is not base64",
		`{"payload":"x","json":null}`:           "give one of payload",
		`{"payload":"","payload_base64":""}`:    "give one of payload",
		`{"expires_at":"tomorrow"}`:             `expires_at "tomorrow" is not an RFC 3339 time`,
		`{"expires_at":"` + long + `"}`:         "is not an RFC 3339 time",
		`{"expires_at":"0001-01-01T00:00:00Z"}`: "outside the years 1970 to 9999",
		`{"expires_at":5}`:                      "must be a string",
		`{}`:                                    "give `payload` (text)",
		`null`:                                  "give `payload` (text)",
		`{"topic":"a","payload":null}`:          "give `payload` (text)",

		`{"payload":"\ud800"}`:                          "half of a surrogate pair",
		`{"payload":"\uDC00\uD800"}`:                    "half of a surrogate pair",
		`{"payload":"\ud800\ud83d\ude00"}`:              "half of a surrogate pair",
		`{"payload":"\\\ud800"}`:                        "half of a surrogate pair",
		`{"topic":"\ud800","json":"\ud801"}`:            "half of a surrogate pair",
		`{"key":"a","headers":{"a":"\ud800"},"json":1}`: "half of a surrogate pair",
		`{"payload":"` + "\xff" + `"}`:                  "not valid UTF-8: send other bytes as `payload_base64`",
		`{"headers":[]}`:                                `"headers" must be an object of texts`,
		`{"headers":{"` + long + `":1}}`:                "must be a text",
		`{"headers":{"a":null}}`:                        `the value of the header "a" must be a text`,
		`{"headers":{"a":["b"]}}`:                       `the value of the header "a" must be a text`,
	} {
		err := new(Message).UnmarshalJSON([]byte(text))
		code := CodeInvalidMessage
		if strings.HasPrefix(text, `{"headers"`) {
			code = CodeInvalidHeader
		}
		wantError(t, err, code, says, text)
		if err != nil && strings.Contains(err.Error(), "Go ") {
			t.Errorf("the sentence speaks of Go: %v", err)
		}
	}
	for _, text := range []string{``, `{`, `{"topic":"a"}{}`, `{"topic":"` + "\n" + `"}`, strings.Repeat("[", 20_000), `{'topic':1}`} {
		wantError(t, new(Message).UnmarshalJSON([]byte(text)), CodeInvalidMessage, "the message is not JSON", text)
	}
}

func TestRepeatedHeadersAreRefused(t *testing.T) {
	for _, text := range []string{
		`{"topic":"a","payload":"","headers":{"a":"1","a":"2"}}`,
		`{"topic":"a","payload":"","headers":{"a":"1","A":"1"}}`,
	} {
		var m Message
		if err := m.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		wantError(t, m.Check(10), CodeInvalidHeader, `the header "a" is given twice`, text)
	}
	var m Message // more headers than are allowed: read only as far as Check needs
	text := `{"topic":"a","payload":"","headers":{"a":"` + strings.Repeat(`","a":"`, 10_000) + `"}}`
	if err := m.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	wantError(t, m.Check(10), CodeInvalidHeader, "more than 32 headers", text)
	if len(m.Headers) != MaxHeaders+1 {
		t.Errorf("%d headers were kept", len(m.Headers))
	}
}

func TestCheckLimits(t *testing.T) {
	headers := func(n, name, value int) []Header {
		var all []Header
		for i := range n {
			all = append(all, Header{Name: fmt.Sprintf("%0*d", name, i), Value: strings.Repeat("v", value)})
		}
		return all
	}
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, m := range map[string]Message{
		"topic":        {Topic: strings.Repeat("a", MaxTopicBytes)},
		"payload":      {Topic: "a", Payload: make([]byte, 100)},
		"id":           {Topic: "a", ID: strings.Repeat("i", MaxIDBytes)},
		"odd id":       {Topic: "a", ID: " \u2028\ufeff\U0010ffff"},
		"key":          {Topic: "a", Key: strings.Repeat("k", MaxKeyBytes)},
		"content type": {Topic: "a", ContentType: strings.Repeat("c", MaxContentTypeBytes)},
		"headers":      {Topic: "a", Headers: headers(MaxHeaders, 2, 1)},
		"header name":  {Topic: "a", Headers: headers(1, MaxHeaderNameBytes, 0)},
		"header value": {Topic: "a", Headers: headers(1, 1, MaxHeaderValueBytes)},
		"header total": {Topic: "a", Headers: headers(2, 1, MaxHeaderTotalBytes/2-1)},
		"no expiry":    {Topic: "a", ExpiresAt: time.Time{}},
		"first expiry": {Topic: "a", ExpiresAt: time.UnixMicro(1)},
		"last expiry":  {Topic: "a", ExpiresAt: at("9999-12-31T23:59:59.999999999Z")},
	} {
		if err := m.Check(100); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct {
		code Code
		says string
		m    Message
	}{
		{CodeInvalidTopic, "the topic is empty", Message{}},
		{CodeInvalidTopic, "256 bytes, at most 255", Message{Topic: strings.Repeat("a", MaxTopicBytes+1)}},
		{CodeReservedTopic, "choose another first character", Message{Topic: "$a"}},
		{CodeReservedTopic, "...", Message{Topic: "$" + strings.Repeat("a", 200)}},
		{CodePayloadTooLarge, "101 bytes, at most 100", Message{Topic: "a", Payload: make([]byte, 101)}},
		{CodeInvalidID, "129 bytes, at most 128", Message{Topic: "a", ID: strings.Repeat("i", MaxIDBytes+1)}},
		{CodeInvalidID, "U+0000", Message{Topic: "a", ID: "a\x00"}},
		{CodeInvalidID, "U+0085", Message{Topic: "a", ID: "a\u0085"}},
		{CodeInvalidID, "not valid UTF-8", Message{Topic: "a", ID: "\xff"}},
		{CodeInvalidKey, "256 bytes, at most 255", Message{Topic: "a", Key: strings.Repeat("k", MaxKeyBytes+1)}},
		{CodeInvalidKey, "U+000A", Message{Topic: "a", Key: "\n"}},
		{CodeInvalidMessage, "256 bytes, at most 255", Message{Topic: "a", ContentType: strings.Repeat("c", MaxContentTypeBytes+1)}},
		{CodeInvalidMessage, "1969-12-31", Message{Topic: "a", ExpiresAt: at("1970-01-01T00:30:00+01:00")}},
		{CodeInvalidMessage, "1970-01-01T00:00:00Z", Message{Topic: "a", ExpiresAt: time.Unix(0, 999)}},
		{CodeInvalidMessage, "outside the years", Message{Topic: "a", ExpiresAt: at("9999-12-31T23:59:59-23:00")}},
		{CodeInvalidMessage, "outside the years", Message{Topic: "a", ExpiresAt: time.Unix(1<<60, 0)}},
		{CodeInvalidMessage, "outside the years", Message{Topic: "a", ExpiresAt: time.Unix(-1<<60, 0)}},
		{CodeInvalidHeader, "more than 32 headers", Message{Topic: "a", Headers: headers(MaxHeaders+1, 2, 1)}},
		{CodeInvalidHeader, "65 bytes, 1 to 64", Message{Topic: "a", Headers: headers(1, MaxHeaderNameBytes+1, 0)}},
		{CodeInvalidHeader, "0 bytes, 1 to 64", Message{Topic: "a", Headers: []Header{{}}}},
		{CodeInvalidHeader, "4097 bytes, at most 4096", Message{Topic: "a", Headers: headers(1, 1, MaxHeaderValueBytes+1)}},
		{CodeInvalidHeader, "8193 bytes in all", Message{Topic: "a", Headers: append(headers(1, 1, MaxHeaderTotalBytes/2-1), Header{"x", strings.Repeat("v", MaxHeaderTotalBytes/2)})}},
		{CodeInvalidHeader, "a character other than", Message{Topic: "a", Headers: []Header{{"a b", ""}}}},
		{CodeInvalidHeader, "a character other than", Message{Topic: "a", Headers: []Header{{"\u212a", ""}}}}, // the Kelvin sign, whose lower case is k
		{CodeInvalidHeader, "a character other than", Message{Topic: "a", Headers: []Header{{"\xff", ""}}}},
		{CodeInvalidHeader, "U+000D", Message{Topic: "a", Headers: []Header{{"a", "\r\n"}}}},
	} {
		input := c.m.Topic + c.m.ID + c.m.Key + c.m.ContentType
		if err := c.m.Check(100); err == nil {
			t.Errorf("%s %q: taken", c.code, c.says)
		} else {
			wantError(t, err, c.code, c.says, input)
		}
	}
}

func TestCheckSortsAndFoldsHeaders(t *testing.T) {
	m := Message{Topic: "a", Headers: []Header{{"B", "1"}, {"X-a_.9", "2"}, {"a", "3"}}}
	if err := m.Check(0); err != nil {
		t.Fatal(err)
	}
	if want := []Header{{"a", "3"}, {"b", "1"}, {"x-a_.9", "2"}}; !reflect.DeepEqual(m.Headers, want) {
		t.Errorf("headers %v, want %v", m.Headers, want)
	}
}
