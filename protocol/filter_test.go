package protocol

import (
	"strings"
	"testing"
)

func mustFilter(t testing.TB, s string) Filter {
	t.Helper()
	f, err := ParseFilter(s)
	if err != nil {
		t.Fatalf("ParseFilter(%q): %v", s, err)
	}
	return f
}

func TestParseFilter(t *testing.T) {
	for _, s := range []string{
		"a", "a.b", "*", ">", "*.>", "a.*.b", "a.*.>", "$sys", "$sys.>", "$", "$.>", "é.\U0001f600.>",
		"a.$b", "-", "a/b", "last:5", strings.Repeat("a", 255), strings.Repeat("*.", 8) + ">", strings.Repeat("a.", 31) + ">",
	} {
		f := mustFilter(t, s)
		if f.String() != s {
			t.Errorf("ParseFilter(%q).String() = %q", s, f.String())
		}
		if f.Exact() != !strings.ContainsAny(s, "*>") || f.All() != (s == ">") {
			t.Errorf("%q: Exact %v, All %v", s, f.Exact(), f.All())
		}
	}
	for s, says := range map[string]string{
		"":                        "the filter is empty",
		".":                       "did the shell take your '>'",
		"a.":                      "Quote it: 'a.>'",
		"it's.":                   "Quote it: 'orders.>'",
		".a":                      "empty token",
		"a..b":                    "empty token",
		"a b":                     "U+0020",
		"a\x00b":                  "U+0000",
		"a\u2028b":                "U+2028",
		"a\u0085b":                "U+0085",
		"a\xffb":                  "not valid UTF-8",
		">.a":                     "not its last token",
		"a.>.b":                   "not its last token",
		">.>":                     "not its last token",
		"a*":                      "stand for whole tokens",
		"**":                      "stand for whole tokens",
		"a.>>":                    "stand for whole tokens",
		"$*":                      "stand for whole tokens",
		"*a.b":                    "stand for whole tokens",
		strings.Repeat("a", 256):  "256 bytes, at most 255",
		strings.Repeat("a.", 100): "Quote it: 'orders.>'",
	} {
		_, err := ParseFilter(s)
		wantError(t, err, CodeInvalidFilter, says, s)
	}
}

// wantError checks an error's code and sentence, and that the sentence does not
// repeat the input beyond the bound.
func wantError(t *testing.T, err error, code Code, says, input string) {
	t.Helper()
	e := AsError(err)
	if e == nil || e.Code != code || !strings.Contains(e.Message, says) {
		t.Errorf("%q: got error %v, want %s saying %q", input, err, code, says)
		return
	}
	if len(input) > maxQuoteBytes && strings.Contains(e.Message, input[:maxQuoteBytes+1]) {
		t.Errorf("the error repeats more than %d bytes of the input: %s", maxQuoteBytes, e.Message)
	}
	if len(e.Message) > 1000 {
		t.Errorf("the sentence has %d bytes: %s", len(e.Message), e.Message)
	}
}

// matches is the rule of filters written down as slowly as possible.
func matches(filter, topic []string) bool {
	if strings.HasPrefix(topic[0], "$") && (filter[0] == "*" || filter[0] == ">") {
		return false
	}
	for i, token := range filter {
		switch {
		case token == ">":
			return len(topic) > i
		case i >= len(topic):
			return false
		case token != "*" && token != topic[i]:
			return false
		}
	}
	return len(filter) == len(topic)
}

// sequences returns all sequences of 1 to most tokens.
func sequences(tokens []string, most int) [][]string {
	var all [][]string
	last := [][]string{{}}
	for range most {
		var next [][]string
		for _, s := range last {
			for _, token := range tokens {
				next = append(next, append(append([]string{}, s...), token))
			}
		}
		all = append(all, next...)
		last = next
	}
	return all
}

// TestFiltersAgainstBruteForce compares Match, Covers and Overlaps with the
// sets of topics that filters select. The topics have one token that no filter
// names and are longer than any filter, so that sets differ where they must.
func TestFiltersAgainstBruteForce(t *testing.T) {
	topics := sequences([]string{"a", "$a", "b", "c"}, 4)
	var filters []Filter
	var selected [][]bool
	for _, tokens := range sequences([]string{"a", "$a", "b", "*", ">"}, 3) {
		f, err := ParseFilter(strings.Join(tokens, "."))
		if at := strings.Index(strings.Join(tokens, ""), ">"); at >= 0 && at < len(strings.Join(tokens, ""))-1 {
			if err == nil {
				t.Fatalf("%v was taken", tokens)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		set := make([]bool, len(topics))
		for i, topic := range topics {
			set[i] = matches(tokens, topic)
			if got := f.Match(strings.Join(topic, ".")); got != set[i] {
				t.Errorf("%q.Match(%v) = %v", f, topic, got)
			}
		}
		filters, selected = append(filters, f), append(selected, set)
	}
	for i, f := range filters {
		for j, g := range filters {
			covers, overlaps := true, false
			for k, inG := range selected[j] {
				covers = covers && (!inG || selected[i][k])
				overlaps = overlaps || (inG && selected[i][k])
			}
			if got := f.Covers(g); got != covers {
				t.Errorf("%q.Covers(%q) = %v", f, g, got)
			}
			if got := f.Overlaps(g); got != overlaps {
				t.Errorf("%q.Overlaps(%q) = %v", f, g, got)
			}
		}
	}
	t.Logf("%d filters, %d topics", len(filters), len(topics))
}

func TestZeroFilter(t *testing.T) {
	var zero Filter
	all := mustFilter(t, ">")
	if zero.Match("a") || zero.Match("") || zero.Covers(all) || all.Covers(zero) || zero.Overlaps(all) || all.Overlaps(zero) || zero.Covers(zero) || zero.All() {
		t.Error("the zero filter selects something")
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	for _, s := range []string{"room.42.chat", "room.*.chat", "room.>", ">"} {
		f := mustFilter(t, s)
		if n := testing.AllocsPerRun(100, func() { f.Match("room.42.chat") }); n != 0 {
			t.Errorf("%q.Match allocates %v times", s, n)
		}
	}
}

func TestCheckTopic(t *testing.T) {
	for _, s := range []string{"a", "a.b.c", "$sys.a", "é", "a.$", "-", "a:b/c", strings.Repeat("a", 255), "a\u200b"} {
		if err := CheckTopic(s); err != nil {
			t.Errorf("CheckTopic(%q): %v", s, err)
		}
	}
	for s, says := range map[string]string{
		"":                             "the topic is empty",
		"a.":                           "ends in '.', remove it",
		".a":                           "empty token",
		"..":                           "ends in '.'",
		"a..b":                         "empty token",
		"a b":                          "U+0020",
		"a\u00a0b":                     "U+00A0",
		"a\nb":                         "U+000A",
		"a\x7f":                        "U+007F",
		"a\xc3":                        "not valid UTF-8",
		"\xed\xa0\x80":                 "not valid UTF-8",
		"a.*":                          "only filters",
		"a.b>":                         "only filters",
		strings.Repeat("a", 256):       "256 bytes, at most 255",
		strings.Repeat("é", 128):       "256 bytes, at most 255",
		strings.Repeat("a", 200) + " ": "U+0020",
	} {
		err := CheckTopic(s)
		if err == nil {
			t.Errorf("CheckTopic(%q) takes it", s)
			continue
		}
		wantError(t, err, CodeInvalidTopic, says, s)
	}
	if !IsReserved("$a") || !IsReserved("$") || IsReserved("a.$") || IsReserved("") {
		t.Error("IsReserved is wrong")
	}
}

// TestIntersect: a topic is selected by what two filters have in common iff it is
// selected by both.
func TestIntersect(t *testing.T) {
	var topics, patterns []string
	var build func(prefix string, depth int)
	build = func(prefix string, depth int) {
		for _, token := range []string{"a", "b", "*", ">"} {
			text := prefix + token
			if strings.ContainsAny(text, "*>") {
				patterns = append(patterns, text)
			} else {
				topics, patterns = append(topics, text), append(patterns, text)
			}
			if token != ">" && depth > 1 {
				build(text+".", depth-1)
			}
		}
	}
	build("", 3)
	topics, patterns = append(topics, "$a", "$a.b", "a.b.a.b"), append(patterns, "$a", "$a.>")
	for _, a := range patterns {
		for _, b := range patterns {
			f, _ := ParseFilter(a)
			g, _ := ParseFilter(b)
			common, some := f.Intersect(g)
			if again, err := ParseFilter(common.String()); some && (err != nil || again != common) {
				t.Fatalf("%s and %s have %q in common: %v", a, b, common, err)
			}
			for _, topic := range topics {
				if both := f.Match(topic) && g.Match(topic); both != (some && common.Match(topic)) {
					t.Fatalf("%s and %s have %q in common (%v), but of both is %s: %v", a, b, common, some, topic, both)
				}
			}
		}
	}
}
