package judge

import (
	"fmt"
	"strconv"
	"strings"
)

// place is a position taken apart, as the section "Positions" of
// docs/protocol.md describes it: the judge must know what comes after what.
type place struct {
	term      string
	partition uint32
	offset    uint64
}

func parsePlace(position string) (place, error) {
	term, rest, ok := strings.Cut(strings.TrimPrefix(position, "p"), "-")
	if !ok || term == "" || !strings.HasPrefix(position, "p") {
		return place{}, fmt.Errorf("%q is not a position", position)
	}
	p := place{term: term}
	if partition, offset, ok := strings.Cut(rest, "_"); ok {
		n, err := strconv.ParseUint(partition, 10, 32)
		if err != nil {
			return place{}, fmt.Errorf("%q is not a position", position)
		}
		p.partition, rest = uint32(n), offset
	}
	n, err := strconv.ParseUint(rest, 10, 53)
	if err != nil {
		return place{}, fmt.Errorf("%q is not a position", position)
	}
	p.offset = n
	return p, nil
}

// matches reports whether a filter matches a topic: `*` is one token, a final
// `>` one or more.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "."), strings.Split(topic, ".")
	if strings.HasPrefix(topic, "$") && f[0] != t[0] {
		return false
	}
	for i, token := range f {
		if token == ">" && i == len(f)-1 {
			return len(t) > i
		}
		if i >= len(t) || (token != "*" && token != t[i]) {
			return false
		}
	}
	return len(f) == len(t)
}
