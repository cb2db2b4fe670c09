package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/protocol"
)

// errNoSecret says how to get one.
var errNoSecret = errors.New("there is no secret to sign with; set TIDEWIRE_AUTH_JWT_SECRET, or auth.jwt.secret in the file given by --config, to what `openssl rand -base64 32` prints, for the broker too")

// tokenRequest is what a token shall say.
type tokenRequest struct {
	subject                     string
	publish, subscribe, consume []string
	ttl                         string
}

func newTokenCommand() *cobra.Command {
	var from configFlags
	var want tokenRequest
	c := &cobra.Command{
		Use:   "token --sub SUBJECT",
		Short: "Sign a token for a client",
		Long: `Sign a token (a JWT with HS256) that lets a client in, with the secret of the
broker's configuration, and print it. In filters, {sub} stands for the subject.`,
		Example: `  tidewire token --sub alice --subscribe 'room.>' --publish 'room.*.chat'
  tidewire token --sub alice --subscribe 'user.{sub}.>' --ttl 7d
  TIDEWIRE_TOKEN="$(tidewire token --sub bob --subscribe 'room.>')" tidewire sub 'room.>'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := from.load()
			if err != nil {
				return err
			}
			token, err := want.sign(&settings.Auth.JWT, time.Now())
			if err != nil {
				return err
			}
			if len(want.publish)+len(want.subscribe)+len(want.consume) == 0 {
				_, _ = fmt.Fprintln(c.ErrOrStderr(), "tidewire: this token allows nothing; add --publish, --subscribe or --consume with a filter")
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), token)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&want.subject, "sub", "", "`subject`: who the token is for")
	f.StringArrayVar(&want.publish, "publish", nil, "`filter` of topics to publish to (may be given again)")
	f.StringArrayVar(&want.subscribe, "subscribe", nil, "`filter` of topics to subscribe to (may be given again)")
	f.StringArrayVar(&want.consume, "consume", nil, "`filter` of topics to consume (may be given again)")
	f.StringVar(&want.ttl, "ttl", "24h", "`time` until it expires, such as 15m or 7d, or forever")
	from.addFile(c)
	return c
}

// tokenClaims are the claims of a token as the broker reads them.
type tokenClaims struct {
	jwt.RegisteredClaims
	Publish   []string `json:"publish,omitempty"`
	Subscribe []string `json:"subscribe,omitempty"`
	Consume   []string `json:"consume,omitempty"`
}

// sign returns the token.
func (r *tokenRequest) sign(settings *config.JWT, now time.Time) (string, error) {
	if settings.Secret == "" {
		return "", errNoSecret
	}
	ttl, err := r.check()
	if err != nil {
		return "", err
	}
	claims := tokenClaims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: r.subject, Issuer: settings.Issuer, IssuedAt: jwt.NewNumericDate(now)},
		Publish:          r.publish,
		Subscribe:        r.subscribe,
		Consume:          r.consume,
	}
	if settings.Audience != "" {
		claims.Audience = jwt.ClaimStrings{settings.Audience}
	}
	if ttl != config.Forever {
		claims.ExpiresAt = jwt.NewNumericDate(now.Add(time.Duration(ttl)))
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(settings.Secret.Reveal()))
}

// check refuses what the broker would refuse later, in front of a client.
func (r *tokenRequest) check() (config.Duration, error) {
	if r.subject == "" {
		return 0, errors.New("--sub is missing; say who the token is for, such as --sub alice")
	}
	if len(r.subject) > protocol.MaxPublisherBytes {
		return 0, fmt.Errorf("--sub has %d bytes, at most %d are allowed", len(r.subject), protocol.MaxPublisherBytes)
	}
	for _, list := range []struct {
		flag    string
		filters []string
	}{{"--publish", r.publish}, {"--subscribe", r.subscribe}, {"--consume", r.consume}} {
		for _, f := range list.filters {
			if err := config.CheckFilter(f, true); err != nil {
				return 0, fmt.Errorf("%s: %w", list.flag, err)
			}
		}
	}
	templates := func(f string) bool { return strings.Contains(f, "{sub}") }
	if slices.ContainsFunc(slices.Concat(r.publish, r.subscribe, r.consume), templates) &&
		(protocol.CheckTopic(r.subject) != nil || strings.ContainsAny(r.subject, ".{}*>$")) {
		return 0, fmt.Errorf("--sub: %q cannot stand for {sub}, which is a part of a topic; choose one without '.', '*', '>', '$', braces and spaces, or leave {sub} out of the filters", r.subject)
	}
	ttl, err := config.ParseDuration(r.ttl)
	if err != nil {
		return 0, fmt.Errorf("--ttl: %w", err)
	}
	if ttl == 0 {
		return 0, errors.New("--ttl is 0, so the token would be expired at once; write a time such as 24h, or forever")
	}
	return ttl, nil
}
