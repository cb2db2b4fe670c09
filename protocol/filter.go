package protocol

import (
	"slices"
	"strings"
)

// A Filter selects topics: it is a topic, or a pattern in which '*' stands for
// one token and a final '>' for one or more. Wildcards in the first place never
// match topics that begin with '$'. The zero value matches nothing.
type Filter struct {
	text  string
	exact bool
}

// Limits of patterns: what matching costs grows with both.
const (
	MaxPatternTokens = 32
	MaxPatternStars  = 8
)

// ParseFilter checks s and returns it as a filter. Errors have the code
// invalid_filter.
func ParseFilter(s string) (Filter, error) {
	if err := checkTokens(s, CodeInvalidFilter, "filter"); err != nil {
		return Filter{}, err
	}
	if !strings.ContainsAny(s, "*>") {
		return Filter{text: s, exact: true}, nil
	}
	tokens, stars := 1+strings.Count(s, "."), strings.Count(s, "*")
	if tokens > MaxPatternTokens || stars > MaxPatternStars {
		limit := LimitStars
		if tokens > MaxPatternTokens {
			limit = LimitPattern
		}
		return Filter{}, Exceeded(limit, "the pattern %s has %d tokens and %d '*', at most %d and %d are allowed", quote(s), tokens, stars, MaxPatternTokens, MaxPatternStars)
	}
	rest, last := s, false
	for !last {
		var token string
		token, rest, last = cutToken(rest)
		switch {
		case token == ">" && !last:
			return Filter{}, Errorf(CodeInvalidFilter, "the filter %s has a '>' that is not its last token", quote(s))
		case len(token) > 1 && strings.ContainsAny(token, "*>"):
			return Filter{}, Errorf(CodeInvalidFilter, "the filter %s has a wildcard inside the token %s: '*' and '>' stand for whole tokens", quote(s), quote(token))
		}
	}
	return Filter{text: s}, nil
}

// String returns the filter as it was written.
func (f Filter) String() string { return f.text }

// Exact reports whether the filter is a topic and not a pattern.
func (f Filter) Exact() bool { return f.exact }

// All reports whether the filter is ">", which matches every topic that does
// not begin with '$'.
func (f Filter) All() bool { return f.text == ">" }

// Match reports whether the filter selects the topic. It does not allocate.
func (f Filter) Match(topic string) bool {
	if f.exact {
		return f.text == topic
	}
	return covers(f.text, topic)
}

// Covers reports whether every topic that g selects is selected by f too.
func (f Filter) Covers(g Filter) bool {
	return f.text != "" && g.text != "" && covers(f.text, g.text)
}

// covers reports whether pattern selects everything that other, a topic or a
// pattern, selects. Tokens are compared one by one: a '*' covers any token but
// '>', a '>' covers any rest that has at least one token.
func covers(pattern, other string) bool {
	if pattern == "" || other == "" {
		return false
	}
	if other[0] == '$' && (pattern[0] == '*' || pattern[0] == '>') {
		return false
	}
	for {
		p, prest, plast := cutToken(pattern)
		o, orest, olast := cutToken(other)
		switch {
		case p == ">":
			return true
		case o == ">":
			return false
		case p != "*" && p != o:
			return false
		case plast || olast:
			return plast && olast
		}
		pattern, other = prest, orest
	}
}

// Overlaps reports whether some topic is selected by both f and g.
func (f Filter) Overlaps(g Filter) bool {
	a, b := f.text, g.text
	if a == "" || b == "" {
		return false
	}
	wild := func(s string) bool { return s[0] == '*' || s[0] == '>' }
	if (a[0] == '$' && wild(b)) || (b[0] == '$' && wild(a)) {
		return false
	}
	for {
		p, prest, plast := cutToken(a)
		o, orest, olast := cutToken(b)
		switch {
		case p == ">" || o == ">":
			return true
		case p != "*" && o != "*" && p != o:
			return false
		case plast || olast:
			return plast && olast
		}
		a, b = prest, orest
	}
}

// Intersect returns the filter that selects exactly the topics which both f and
// g select; some is false if there are none.
func (f Filter) Intersect(g Filter) (common Filter, some bool) {
	if !f.Overlaps(g) {
		return Filter{}, false
	}
	var tokens []string
	a, b := f.text, g.text
	for last := false; !last; {
		p, prest, plast := cutToken(a)
		q, qrest, _ := cutToken(b)
		switch {
		case p == ">":
			tokens = append(tokens, b)
		case q == ">":
			tokens = append(tokens, a)
		case p == "*":
			tokens = append(tokens, q)
		default:
			tokens = append(tokens, p)
		}
		last = plast || p == ">" || q == ">"
		a, b = prest, qrest
	}
	text := strings.Join(tokens, ".")
	return Filter{text: text, exact: !strings.ContainsAny(text, "*>")}, true
}

// cutToken splits off the first token; last says that nothing follows it.
func cutToken(s string) (token, rest string, last bool) {
	token, rest, found := strings.Cut(s, ".")
	return token, rest, !found
}

// Holding returns the indices of those of streams, ascending, that hold topics
// which f selects. Each stream is its filters, and of several that match a topic
// the first has it. What a filter of a stream selects may so belong to streams
// before it, and counts only if none of their filters covers all that the two
// have in common. Where it takes several of them to do so, the stream is returned
// although it has nothing.
func Holding(f Filter, streams [][]Filter) []int {
	var found []int
	var before []Filter
	for i, filters := range streams {
		if holds(filters, f, before) {
			found = append(found, i)
		}
		before = append(before, filters...)
	}
	return found
}

func holds(filters []Filter, f Filter, before []Filter) bool {
	for _, own := range filters {
		common, some := own.Intersect(f)
		if some && !slices.ContainsFunc(before, func(g Filter) bool { return g.Covers(common) }) {
			return true
		}
	}
	return false
}
