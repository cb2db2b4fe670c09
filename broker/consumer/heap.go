package consumer

// dues is a heap of entries, the earliest due on top, of equals the lowest
// offset. Each entry knows its place, so that one in the middle can go.
type dues []*entry

func (h dues) top() *entry {
	if len(h) == 0 {
		return nil
	}
	return h[0]
}

func (h *dues) push(e *entry) {
	*h = append(*h, e)
	e.at = len(*h) - 1
	h.up(e.at)
}

func (h *dues) remove(e *entry) {
	at, last := e.at, len(*h)-1
	(*h)[at] = (*h)[last]
	(*h)[at].at = at
	(*h)[last] = nil
	*h = (*h)[:last]
	if at < last {
		h.down(at)
		h.up(at)
	}
}

func (h dues) less(i, j int) bool {
	a, b := h[i], h[j]
	return a.Due < b.Due || a.Due == b.Due && a.Offset < b.Offset
}

func (h dues) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h dues) up(i int) {
	for i > 0 && h.less(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h dues) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			return
		}
		h.swap(i, child)
		i = child
	}
}

// count is how many are due by then, counted up to most. It looks at no more
// than twice as many.
func (h dues) count(by int64, most int) int { return h.countBelow(0, by, most) }

func (h dues) countBelow(i int, by int64, most int) int {
	if most <= 0 || i >= len(h) || h[i].Due > by {
		return 0
	}
	n := 1 + h.countBelow(2*i+1, by, most-1)
	return n + h.countBelow(2*i+2, by, most-n)
}
