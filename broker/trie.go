package broker

import "strings"

// trie finds the groups whose filters match a topic. Its cost is that of the
// topic's tokens and of the patterns that match, not of the filters it holds.
// It is guarded by its owner.
type trie struct {
	root node
}

// node is one token of one or more filters.
type node struct {
	children map[string]*node // by token; "*" is a token like any other
	here     *group           // the filter that ends at this node
	rest     *group           // the filter that goes on with ">"
}

// match appends the groups that match the topic to found. Wildcards in the
// first place do not match topics that begin with '$'.
func (t *trie) match(topic string, found []*group) []*group {
	if topic[0] == '$' {
		token, rest, more := strings.Cut(topic, ".")
		return t.root.child(token, rest, more, found)
	}
	return t.root.match(topic, found)
}

// match appends what matches the remaining tokens, of which there is at least
// one.
func (n *node) match(topic string, found []*group) []*group {
	if n.rest != nil {
		found = append(found, n.rest)
	}
	token, rest, more := strings.Cut(topic, ".")
	found = n.child("*", rest, more, found)
	return n.child(token, rest, more, found)
}

// child goes on at the child for a token.
func (n *node) child(token, rest string, more bool, found []*group) []*group {
	c := n.children[token]
	switch {
	case c == nil:
		return found
	case more:
		return c.match(rest, found)
	case c.here != nil:
		return append(found, c.here)
	default:
		return found
	}
}

// get returns the group of a filter, or nil.
func (t *trie) get(filter string) *group {
	slot := t.slot(filter, false)
	if slot == nil {
		return nil
	}
	return *slot
}

// put stores the group of a filter.
func (t *trie) put(filter string, g *group) { *t.slot(filter, true) = g }

// slot returns where the group of a filter is kept, making the way to it if
// asked to.
func (t *trie) slot(filter string, create bool) **group {
	n := &t.root
	for {
		token, rest, more := strings.Cut(filter, ".")
		if token == ">" {
			return &n.rest
		}
		c := n.children[token]
		if c == nil {
			if !create {
				return nil
			}
			if n.children == nil {
				n.children = make(map[string]*node, 1)
			}
			c = &node{}
			n.children[token] = c
		}
		if !more {
			return &c.here
		}
		n, filter = c, rest
	}
}

// remove forgets the group of a filter and the nodes that only led to it.
func (t *trie) remove(filter string) { t.root.remove(filter) }

// remove reports whether the node is empty now.
func (n *node) remove(filter string) bool {
	token, rest, more := strings.Cut(filter, ".")
	if token == ">" {
		n.rest = nil
	} else if c := n.children[token]; c != nil {
		if !more {
			c.here = nil
		}
		if (more && c.remove(rest)) || (!more && c.empty()) {
			delete(n.children, token)
		}
	}
	return n.empty()
}

func (n *node) empty() bool { return len(n.children) == 0 && n.here == nil && n.rest == nil }
