package protocol

import "encoding/binary"

// Partition returns the partition of a topic in a log of n partitions. It is
// what Java's producer does with a record's key, and librdkafka with
// `partitioner=murmur2_random`, so that any Kafka client puts a topic where the
// broker looks for it.
func Partition(topic string, n int) int {
	if n <= 1 {
		return 0
	}
	return int(murmur2([]byte(topic))&0x7fffffff) % n
}

// murmur2 is the hash of Kafka's Utils.murmur2.
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data)
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
