package storage

// Again lets Run be called again after it has returned, as if nothing were.
func (l *MemoryLog) Again() { l.queue = newQueue() }
