package server_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lxzan/gws"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

const (
	oneKey   = "twk_one-of-the-keys-of-this-test"
	otherKey = "twk_another-key-of-this-very-test"
)

func keyed(keys ...server.APIKey) server.Access {
	return server.Access{Loopback: true, APIKeys: keys, JWT: server.JWT{Secret: []byte(strings.Repeat("s", 32))}}
}

// ended returns the code with which a session was closed; empty if it lives.
func (c *client) ended() string {
	synctest.Wait()
	select {
	case <-c.closed:
		closing, ok := errors.AsType[*gws.CloseError](c.err)
		for _, info := range protocol.Codes() {
			if ok && info.Close == closing.Code {
				return string(info.Code)
			}
		}
		return c.err.Error()
	default:
		return ""
	}
}

// signed returns a token that holds for an hour.
func signed(t testing.TB, secret []byte) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": "ada", "exp": time.Now().Add(time.Hour).Unix(), "subscribe": []string{">"}}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestReloadReviewsSessions: sessions keep the rights that the new rules give
// them, and no others.
func TestReloadReviewsSessions(t *testing.T) {
	all := []string{">"}
	synctest.Test(t, func(t *testing.T) {
		e := newEdgeOn(t, brokertest.NewLog(), server.Options{Access: keyed(
			server.APIKey{Name: "stays", Key: oneKey, Publish: all, Subscribe: all},
			server.APIKey{Name: "goes", Key: otherKey, Subscribe: all},
		)}, broker.Options{})
		stays, goes := e.dialToken(oneKey), e.dialToken(otherKey)
		stays.send(&tidewirev1.Subscribe{Sub: 1, Filter: "secret"})
		stays.send(&tidewirev1.Subscribe{Sub: 2, Filter: "open"})
		synctest.Wait()

		err := e.server.Reload(keyed(server.APIKey{Name: "stays", Key: oneKey, Subscribe: []string{"open"}}), server.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if code := goes.ended(); code != string(protocol.CodeUnauthorized) {
			t.Errorf("the session whose key has gone: %q", code)
		}
		if code := stays.ended(); code != "" {
			t.Errorf("the session whose key stays: %q", code)
		}
		if code, _ := stays.refusal(); code != protocol.CodeForbidden {
			t.Errorf("the subscription that is not allowed any more: %q", code)
		}
		stays.send(&protocol.Publish{Ref: 1, Messages: []protocol.Message{msg("open", "x")}})
		if code, _ := stays.refusal(); code != protocol.CodeForbidden {
			t.Errorf("publishing: %q", code)
		}
		if _, err := e.dialWith(http.Header{"Authorization": {"Bearer " + otherKey}}, protocol.Proto{}, nil); err == nil {
			t.Error("the key that has gone opens a session")
		}
		// A second time, without a change: nothing happens to anybody.
		if err := e.server.Reload(keyed(server.APIKey{Name: "stays", Key: oneKey, Subscribe: []string{"open"}}), server.Limits{}); err != nil {
			t.Fatal(err)
		}
		if code := stays.ended(); code != "" {
			t.Errorf("after a reload without a change: %q", code)
		}
	})
}

// TestReloadOfTokens: a new secret sends those with a token back for another
// one; and rules that make no sense change nothing.
func TestReloadOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		access := keyed()
		e := newEdgeOn(t, brokertest.NewLog(), server.Options{Access: access}, broker.Options{})
		c := e.dialToken(signed(t, access.JWT.Secret))
		synctest.Wait()
		bad := access
		bad.JWT.Secret = []byte("short")
		if err := e.server.Reload(bad, server.Limits{PayloadBytes: 1}); err == nil {
			t.Error("a short secret was taken")
		}
		if err := e.server.Reload(access, server.Limits{}); err != nil {
			t.Fatal(err)
		}
		if code := c.ended(); code != "" {
			t.Errorf("without a change: %q", code)
		}
		access.JWT.Secret = []byte(strings.Repeat("t", 32))
		if err := e.server.Reload(access, server.Limits{}); err != nil {
			t.Fatal(err)
		}
		if code := c.ended(); code != string(protocol.CodeTokenExpired) {
			t.Errorf("with another secret: %q", code)
		}
		e.dialToken(signed(t, access.JWT.Secret))
	})
}

// TestReloadOfAnonymous: who was let in without a token goes when that ends,
// from streams of events too.
func TestReloadOfAnonymous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdgeOn(t, brokertest.NewLog(), server.Options{}, broker.Options{})
		c := e.connect(protocol.Proto{})
		events := e.request("GET /v1/events?filter=a HTTP/1.1")
		if err := e.server.Reload(keyed(), server.Limits{}); err != nil {
			t.Fatal(err)
		}
		if code := c.ended(); code != string(protocol.CodeUnauthorized) {
			t.Errorf("the session: %q", code)
		}
		rest := make([]byte, 4096)
		n := 0
		for {
			m, err := events.Body.Read(rest[n:])
			if n += m; err != nil {
				break
			}
		}
		if !strings.Contains(string(rest[:n]), string(protocol.CodeUnauthorized)) {
			t.Errorf("the stream: %q", rest[:n])
		}
	})
}
