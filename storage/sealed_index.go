package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

// The index of a sealed segment is cut into leaves of a few KiB, in the order of
// topics:
//
//	key     byte 0 for the first leaf, byte 1 and its first topic for others
//	value   CRC-32C of key and rest; the first topic of the next leaf, empty for
//	        the last one; then each topic with its postings
//
// Strings and postings are preceded by their length as a varint. A leaf says
// where the next one begins, so a leaf that got lost is noticed as surely as one
// that was changed: a topic that is not found is not there. One key for each
// topic would be simpler, but nothing would tell a lost key from one that never
// was.
const leafBytes = 3 << 10

// indexLeaf is one leaf, verified.
type indexLeaf struct {
	next    []byte // first topic of the next leaf
	entries []byte
}

// leafKey returns the key of the leaf, not the first one, that begins with the
// topic.
func leafKey[T string | []byte](topic T) []byte { return append([]byte{1}, topic...) }

// appendLeaf encodes the leaf that begins with the first of the topics, and
// returns how many of them it has.
func (x *topicIndex) appendLeaf(key []byte, topics []string) (value []byte, n int) {
	var entries []byte
	for n < len(topics) && len(entries) < leafBytes {
		p := x.topics[topics[n]].encode(x.records)
		entries = append(binary.AppendUvarint(entries, uint64(len(topics[n]))), topics[n]...)
		entries = append(binary.AppendUvarint(entries, uint64(len(p))), p...)
		n++
	}
	next := ""
	if n < len(topics) {
		next = topics[n]
	}
	value = make([]byte, crcBytes, crcBytes+1+len(next)+len(entries))
	value = append(binary.AppendUvarint(value, uint64(len(next))), next...)
	value = append(value, entries...)
	binary.LittleEndian.PutUint32(value, leafSum(key, value))
	return value, n
}

func leafSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[crcBytes:])
}

// openLeaf verifies a leaf.
func openLeaf(key, value []byte) (indexLeaf, error) {
	if len(value) < crcBytes || binary.LittleEndian.Uint32(value) != leafSum(key, value) {
		return indexLeaf{}, errIndex
	}
	next, entries, ok := cutString(value[crcBytes:])
	if !ok {
		return indexLeaf{}, errIndex
	}
	return indexLeaf{next, entries}, nil
}

var errIndex = fmt.Errorf("%w: its topic index does not match its checksums", errDamaged)

// cutString splits off a string behind its length.
func cutString(b []byte) (s, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	return b[size : size+int(n)], b[size+int(n):], true
}

// take splits off the first entry; topic is nil at the end.
func (l *indexLeaf) take() (topic, postings []byte, err error) {
	if len(l.entries) == 0 {
		return nil, nil, nil
	}
	topic, rest, ok := cutString(l.entries)
	if ok {
		postings, rest, ok = cutString(rest)
	}
	if !ok {
		return nil, nil, errIndex
	}
	l.entries = rest
	return topic, postings, nil
}

// seekLeaf returns the leaf in which the topic is if it is anywhere.
func seekLeaf(c *bbolt.Cursor, topic []byte) (indexLeaf, error) {
	want := leafKey(topic)
	k, v := c.Seek(want)
	if k == nil {
		k, v = c.Last()
	} else if !bytes.Equal(k, want) {
		k, v = c.Prev()
	}
	if k == nil || bytes.Compare(k, want) > 0 {
		return indexLeaf{}, errIndex
	}
	l, err := openLeaf(k, v)
	if err == nil && len(l.next) > 0 && bytes.Compare(topic, l.next) >= 0 {
		err = errIndex
	}
	return l, err
}

// findTopic returns the stored postings of a topic, nil if there are none.
func findTopic(index *bbolt.Bucket, topic string) ([]byte, error) {
	want := []byte(topic)
	leaf, err := seekLeaf(index.Cursor(), want)
	for err == nil {
		var t, p []byte
		if t, p, err = leaf.take(); t == nil || bytes.Compare(t, want) > 0 {
			return nil, err
		} else if bytes.Equal(t, want) {
			return p, nil
		}
	}
	return nil, err
}

// eachTopic calls fn with the topics from the given one on, and their postings,
// in order, until fn returns false or an error.
func eachTopic(index *bbolt.Bucket, from []byte, fn func(topic, postings []byte) (bool, error)) error {
	c := index.Cursor()
	leaf, err := seekLeaf(c, from)
	for err == nil {
		topic, postings, err := leaf.take()
		switch {
		case err != nil:
			return err
		case topic != nil:
			if bytes.Compare(topic, from) < 0 {
				continue
			}
			if more, err := fn(topic, postings); !more || err != nil {
				return err
			}
		case len(leaf.next) == 0:
			return nil
		default:
			k, v := c.Next()
			if !bytes.Equal(k, leafKey(leaf.next)) {
				return errIndex
			}
			if leaf, err = openLeaf(k, v); err != nil {
				return err
			}
		}
	}
	return err
}
