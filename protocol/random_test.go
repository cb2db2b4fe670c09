package protocol

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// newRandom returns a source of random input and prints its seed, which
// TIDEWIRE_SEED repeats.
func newRandom(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("TIDEWIRE_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("TIDEWIRE_SEED is not a number: %v", err)
		}
		seed = n
	}
	t.Logf("repeat with TIDEWIRE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// runes are those that encodings get wrong.
var runes = []rune("aZ0 .*>$\"\\/<>&'\x00\x01\x1f\x7f\u0080\u00e9\u2028\u2029\ufeff\ufffd\U0001f600\t\n")

func randomText(r *rand.Rand, most int) string {
	var b strings.Builder
	for range r.IntN(most + 1) {
		b.WriteRune(runes[r.IntN(len(runes))])
	}
	return b.String()
}

func randomBytes(r *rand.Rand, most int) []byte {
	b := make([]byte, r.IntN(most+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// randomPrintable is a text that Check lets pass.
func randomPrintable(r *rand.Rand, most int) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || (c >= 0x7f && c <= 0x9f) {
			return -1
		}
		return c
	}, randomText(r, most))
}

func randomTopic(r *rand.Rand) string {
	tokens := make([]string, 1+r.IntN(4))
	for i := range tokens {
		tokens[i] = []string{"a", "room", "42", "é", "$x", "\U0001f600"}[r.IntN(6)]
	}
	return strings.TrimLeft(strings.Join(tokens, "."), "$")
}

// randomMessage is one that Check lets pass, as a publisher makes it.
func randomMessage(r *rand.Rand) Message {
	m := Message{Topic: randomTopic(r), ID: randomPrintable(r, 20), Key: randomPrintable(r, 20), ContentType: randomPrintable(r, 20)}
	if r.IntN(2) == 0 {
		m.Payload = []byte(randomText(r, 50))
	} else {
		m.Payload = randomBytes(r, 50)
	}
	for i := range r.IntN(4) {
		m.Headers = append(m.Headers, Header{Name: strconv.Itoa(i) + "x-._", Value: randomPrintable(r, 20)})
	}
	if r.IntN(3) == 0 {
		m.ExpiresAt = time.UnixMicro(1 + r.Int64N(maxMicros)).UTC()
	}
	m.Ephemeral = r.IntN(5) == 0
	return m
}

func randomPosition(r *rand.Rand) Position {
	p := Position{Term: Term(r.Uint64() | 1), Offset: r.Uint64N(MaxOffset + 1)}
	if r.IntN(2) == 0 {
		p.Partition = r.Uint32()
	}
	if r.IntN(10) == 0 {
		p.Offset = MaxOffset
	}
	return p
}
