package protocol

import "testing"

// The numbers are those of Kafka's own test of its hash (UtilsTest.testMurmur2).
func TestMurmur2IsKafkas(t *testing.T) {
	for text, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(text))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestPartitionIsThatOfJavasProducer(t *testing.T) {
	for _, c := range []struct {
		topic string
		n     int
		want  int
	}{
		{"foobar", 1, 0},
		{"foobar", 0, 0},
		{"21", 12, (-973932308 & 0x7fffffff) % 12},
		{"foobar", 3, (-790332482 & 0x7fffffff) % 3},
		{"abc", 100, 479470107 % 100},
	} {
		if got := Partition(c.topic, c.n); got != c.want {
			t.Errorf("Partition(%q, %d) = %d, want %d", c.topic, c.n, got, c.want)
		}
	}
}
