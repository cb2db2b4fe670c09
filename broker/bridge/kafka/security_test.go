package kafka_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// kfake closes the connection after a wrong password, where Kafka says so; the
// tests on real Kafka see that.
func TestSASL(t *testing.T) {
	users := []kfake.Opt{
		kfake.EnableSASL(), kfake.Superuser(kafka.Plain, "p", "secret"),
		kfake.Superuser(kafka.ScramSHA256, "s256", "secret"), kfake.Superuser(kafka.ScramSHA512, "s512", "secret"),
	}
	cases := []struct {
		name string
		sasl kafka.SASL
		want kafka.Kind
		says string
	}{
		{"plain", kafka.SASL{Mechanism: kafka.Plain, User: "p", Password: "secret"}, "", ""},
		{"scram 256", kafka.SASL{Mechanism: kafka.ScramSHA256, User: "s256", Password: "secret"}, "", ""},
		{"scram 512", kafka.SASL{Mechanism: kafka.ScramSHA512, User: "s512", Password: "secret"}, "", ""},
		{"wrong password", kafka.SASL{Mechanism: kafka.Plain, User: "p", Password: "x"}, kafka.Unreachable, `whether user "p", its password`},
		{"wrong password, scram", kafka.SASL{Mechanism: kafka.ScramSHA512, User: "s512", Password: "x"}, kafka.Unreachable, `whether user "s512", its password`},
		{"unknown user", kafka.SASL{Mechanism: kafka.ScramSHA256, User: "x", Password: "secret"}, kafka.Unreachable, `whether user "x", its password`},
		{"none", kafka.SASL{}, kafka.Unreachable, "may expect TLS or SASL"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				client := w.newClient(func(o *kafka.Options) { o.SASL = c.sasl })
				defer client.Close()
				_, err := client.Topic(t.Context(), topic)
				expect(t, err, c.want, c.says)
			}, users...)
		})
	}
}

// The library sets no deadline while it authenticates. A broker that is stopped
// just then must not keep the client from ever connecting again.
func TestASilenceDuringTheLogin(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var silent atomic.Bool
		silent.Store(true)
		w.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			return nil, nil, silent.Load()
		})
		client := w.newClient(func(o *kafka.Options) {
			o.SASL = kafka.SASL{Mechanism: kafka.Plain, User: "p", Password: "secret"}
		})
		defer client.Close()
		_, err := client.Topic(t.Context(), topic)
		expect(t, err, kafka.Unreachable, "")
		silent.Store(false)
		within(t, 15*time.Second, "connected", func() bool {
			_, err := client.Topic(t.Context(), topic)
			return err == nil
		})
	}, kfake.EnableSASL(), kfake.Superuser(kafka.Plain, "p", "secret"))
}

func TestOptionsThatCannotBeRight(t *testing.T) {
	for _, o := range []kafka.Options{
		{},
		{Brokers: []string{"localhost"}},
		{Brokers: []string{"a:1,b:2"}},
		{Brokers: []string{"a:1"}, SASL: kafka.SASL{User: "u"}},
		{Brokers: []string{"a:1"}, SASL: kafka.SASL{Mechanism: kafka.Plain}},
		{Brokers: []string{"a:1"}, SASL: kafka.SASL{Mechanism: kafka.ScramSHA256}},
		{Brokers: []string{"a:1"}, SASL: kafka.SASL{Mechanism: "GSSAPI", User: "u"}},
	} {
		if _, err := kafka.New(o); !errors.Is(err, kafka.Invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestTLS(t *testing.T) {
	// Bubbles begin in the year 2000.
	from := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	good, pool := certificate(t, from, "localhost", "127.0.0.1")
	_, others := certificate(t, from, "localhost")
	foreign, foreignPool := certificate(t, from, "kafka.example")
	old, oldPool := certificate(t, from.AddDate(-20, 0, 0), "localhost")
	server := func(c tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12}
	}
	cases := []struct {
		name   string
		server *tls.Config
		client *tls.Config
		want   kafka.Kind
		says   string
	}{
		{"trusted", server(good), &tls.Config{RootCAs: pool}, "", ""},
		{"another authority", server(good), &tls.Config{RootCAs: others}, kafka.BadTLS, "signed by nobody who is trusted"},
		{"another name", server(foreign), &tls.Config{RootCAs: foreignPool}, kafka.BadTLS, "for other hosts"},
		{"expired", server(old), &tls.Config{RootCAs: oldPool}, kafka.BadTLS, "expired"},
		{"we without", server(good), nil, kafka.Unreachable, "expects TLS"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				client := w.newClient(func(o *kafka.Options) { o.TLS = c.client })
				defer client.Close()
				_, err := client.Topic(t.Context(), topic)
				expect(t, err, c.want, c.says)
			}, kfake.TLS(c.server))
		})
	}
}

func expect(t *testing.T, err error, want kafka.Kind, says string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Error(err)
	case want != "" && (!errors.Is(err, want) || !strings.Contains(err.Error(), says)):
		t.Errorf("got %q of kind %q, want %q that says %q", err, kafka.KindOf(err), want, says)
	}
}

// certificate makes one that signs itself, and a pool that trusts it.
func certificate(t *testing.T, from time.Time, hosts ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: from.AddDate(10, 0, 0), DNSNames: hosts,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}
