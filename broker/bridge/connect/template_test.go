package connect

import (
	"strings"
	"testing"

	"github.com/tidewire/tidewire/protocol"
)

func TestTemplates(t *testing.T) {
	record := func(payload string) *fields {
		return &fields{
			topic: "erp.orders", partition: "3", key: "k1", id: "i1", payload: []byte(payload),
			header: func(name string) (string, bool) { return "de", name == "country" },
		}
	}
	const payload = ` {"region":"eu","n":12.50,"big":12345678901234567890,"yes":true,"no":false,"nil":null,"list":[1],"a":{"b":"deep","$":"x"}} `
	for _, c := range []struct {
		template, payload, want string
		why                     Reason
	}{
		{"plain", payload, "plain", ""},
		{"plain", "no JSON, which nobody asks for", "plain", ""},
		{"{topic}", payload, "erp.orders", ""},
		{"a.{key}.{partition}.{id}.z", payload, "a.k1.3.i1.z", ""},
		{"{key}{key}", payload, "k1k1", ""},
		{"in.{header.country}", payload, "in.de", ""},
		{"in.{header.other}", payload, "", MissingField},
		{"orders.{json.region}", payload, "orders.eu", ""},
		{"{json.a.b}", payload, "deep", ""},
		{"x{json.n}", payload, "x12.50", ""},
		{"{json.big}", payload, "12345678901234567890", ""},
		{"{json.yes}-{json.no}", payload, "true-false", ""},
		{"{json.nil}", payload, "", MissingField},
		{"{json.list}", payload, "", MissingField},
		{"{json.a}", payload, "", MissingField},
		{"{json.region.x}", payload, "", MissingField},
		{"{json.none}", payload, "", MissingField},
		{"{json.region}", "{", "", NotJSON},
		{"{json.region}", "", "", NotJSON},
		{"{json.region}", `{"region":"eu"} x`, "", NotJSON},
		{"{json.region}", `{"region":"eu"}{}`, "", NotJSON},
		{"{json.region}", `["eu"]`, "", MissingField},
	} {
		all := append(InFields(), FieldID)
		tmpl, err := ParseTemplate(c.template, all...)
		if err != nil {
			t.Fatal(err)
		}
		if tmpl.String() != c.template {
			t.Errorf("%q is written as %q", c.template, tmpl)
		}
		if got, why := tmpl.fill(record(c.payload)); got != c.want || why != c.why {
			t.Errorf("%s of %s: %q (%s), want %q (%s)", c.template, c.payload, got, why, c.want, c.why)
		}
	}
	tmpl, _ := ParseTemplate("{key}", FieldKey)
	if _, why := tmpl.fill(&fields{noKey: true}); why != MissingField {
		t.Errorf("a record without a key: %q", why)
	}
}

func TestTemplatesThatCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		"":             "must not be empty",
		"a{key":        "'{' without a '}'",
		"a}b":          "'}' without a '{'",
		"{key}}":       "'}' without a '{'",
		"{}":           "{} is no field here; there are {key}, {header.NAME}, {json.a.b}, {topic}, {partition}",
		"{Key}":        "{Key} is no field",
		"{id}":         "{id} is no field",
		"{key.a}":      "{key.a} is no field",
		"{header}":     "{header} is no field",
		"{header.}":    "{header.} is no field",
		"{json}":       "{json} is no field",
		"{json.}":      "{json.} is no field",
		"{json.a..b}":  "{json.a..b} is no field",
		"{json.{key}}": "no field",
	} {
		if _, err := ParseTemplate(text, InFields()...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestTopicsOfTemplates(t *testing.T) {
	for key, want := range map[string]Reason{
		"eu": "", "a.b": "", "ü": "", "$": "",
		"": InvalidTopic, "a b": InvalidTopic, "*": InvalidTopic, ">": InvalidTopic, "a..b": InvalidTopic, ".": InvalidTopic,
		"a\x00": InvalidTopic, "\xff": InvalidTopic, strings.Repeat("x", 300): InvalidTopic,
	} {
		tmpl, _ := ParseTemplate("orders.{key}", InFields()...)
		if _, why := topicOf(tmpl, &fields{key: key}); why != want {
			t.Errorf("the key %q: %q, want %q", key, why, want)
		}
	}
	tmpl, _ := ParseTemplate("{key}", InFields()...)
	if _, why := topicOf(tmpl, &fields{key: "$control"}); why != ReservedTopic {
		t.Errorf("a topic of the broker: %q", why)
	}
}

func TestHeadersOfTheConfiguration(t *testing.T) {
	h, err := ParseHeader("source = tidewire {topic}")
	if err != nil || h.Name != "source" || h.Value.String() != "tidewire {topic}" {
		t.Errorf("%+v %v", h, err)
	}
	for text, want := range map[string]string{"a": "is no header", "=b": "is no header", "a=": "must not be empty", "Tidewire-Id=x": "own", "a={b}": "no field"} {
		if _, err := ParseHeader(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// FuzzTemplate: whatever the template and the record, what comes out is a topic that
// may be published to, or a reason.
func FuzzTemplate(f *testing.F) {
	f.Add("orders.{json.a.b}.{key}", "k", `{"a":{"b":"c"}}`, "h")
	f.Add("{header.x}{topic}{partition}", "", `[]`, "")
	f.Add("{{key}}", "$", `1`, ">")
	f.Fuzz(func(t *testing.T, text, key, payload, header string) {
		tmpl, err := ParseTemplate(text, InFields()...)
		if err != nil {
			return
		}
		of := func() *fields {
			return &fields{
				topic: "t", partition: "0", key: key, payload: []byte(payload),
				header: func(name string) (string, bool) { return header, name == "x" },
			}
		}
		topic, why := topicOf(tmpl, of())
		if why == "" && (protocol.CheckTopic(topic) != nil || protocol.IsReserved(topic)) {
			t.Errorf("%q gives the topic %q", text, topic)
		}
		if again, because := topicOf(tmpl, of()); again != topic || because != why {
			t.Errorf("%q gives %q (%s), then %q (%s)", text, topic, why, again, because)
		}
	})
}
