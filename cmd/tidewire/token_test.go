package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const secret = "jwt9x8w7v6u5t4s3r2q1p0o9n8m7l6k5j4"

func TestTokenRoundTrip(t *testing.T) {
	t.Setenv("TIDEWIRE_AUTH_JWT_SECRET", secret)
	t.Setenv("TIDEWIRE_AUTH_JWT_ISSUER", "us")
	t.Setenv("TIDEWIRE_AUTH_JWT_AUDIENCE", "them")
	status, out, errs := call("token", "--sub", "alice", "--publish", "room.*.chat", "--publish", "a,b",
		"--subscribe", "user.{sub}.>", "--consume", "jobs.>", "--ttl", "7d")
	if status != 0 || errs != "" || strings.Count(out, "\n") != 1 {
		t.Fatalf("status %d, %q, %q", status, out, errs)
	}
	var claims tokenClaims
	key := func(*jwt.Token) (any, error) { return []byte(secret), nil }
	if _, err := jwt.ParseWithClaims(strings.TrimSpace(out), &claims, key,
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer("us"), jwt.WithAudience("them"), jwt.WithExpirationRequired()); err != nil {
		t.Fatal(err)
	}
	got := []any{claims.Subject, claims.Publish, claims.Subscribe, claims.Consume}
	want := []any{"alice", []string{"room.*.chat", "a,b"}, []string{"user.{sub}.>"}, []string{"jobs.>"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if left := time.Until(claims.ExpiresAt.Time); left < 167*time.Hour || left > 168*time.Hour {
		t.Errorf("it expires in %v", left)
	}
}

func TestTokenForever(t *testing.T) {
	t.Setenv("TIDEWIRE_AUTH_JWT_SECRET", secret)
	status, out, errs := call("token", "--sub", "alice", "--ttl", "forever")
	if status != 0 || !strings.Contains(errs, "this token allows nothing") {
		t.Errorf("status %d, %q", status, errs)
	}
	var claims tokenClaims
	if _, _, err := jwt.NewParser().ParseUnverified(strings.TrimSpace(out), &claims); err != nil || claims.ExpiresAt != nil {
		t.Errorf("expires %v, %v", claims.ExpiresAt, err)
	}
}

func TestTokenRefusals(t *testing.T) {
	if status, out, errs := call("token", "--sub", "a"); status != 1 || out != "" || !strings.Contains(errs, "TIDEWIRE_AUTH_JWT_SECRET") {
		t.Errorf("without a secret: status %d, %q, %q", status, out, errs)
	}
	t.Setenv("TIDEWIRE_AUTH_JWT_SECRET", secret)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{}, "--sub is missing; say who the token is for, such as --sub alice"},
		{[]string{"--sub", strings.Repeat("a", 300)}, "--sub has 300 bytes, at most 255 are allowed"},
		{[]string{"--sub", "a", "--publish", "a.{user}"}, `--publish: "a.{user}" has {user} in it, which is not known; {sub} is the only template`},
		{[]string{"--sub", "a.b", "--subscribe", "u.{sub}"}, `--sub: "a.b" cannot stand for {sub}, which is a part of a topic; choose one without '.', '*', '>', '$', braces and spaces, or leave {sub} out of the filters`},
		{[]string{"--sub", "a", "--ttl", "0"}, "--ttl is 0, so the token would be expired at once; write a time such as 24h, or forever"},
		{[]string{"--sub", "a", "--ttl", "1w"}, `--ttl: "1w" is not a time span; write a number with its unit, such as 500ms, 25s, 10m, 168h or 7d`},
	} {
		status, out, errs := call(append([]string{"token"}, c.args...)...)
		if status != 1 || out != "" || errs != "tidewire: "+c.want+"\n" {
			t.Errorf("%q: status %d, output %q, and\n got: %s\nwant: %s", c.args, status, out, errs, c.want)
		}
	}
	if _, _, errs := call("token", "--sub", "a", "--subscribe", "orders."); !strings.Contains(errs, "shell") {
		t.Errorf("a filter that the shell has cut: %q", errs)
	}
}
