package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

// KeyPrefix begins every API key, so that one is recognized wherever it leaks.
const KeyPrefix = "twk_"

const (
	minKeyBytes    = len(KeyPrefix) + 20 // cannot be guessed
	minSecretBytes = 32                  // RFC 7518, section 3.2: as long as the hash
)

// subject is the template in filters; see [Permissions].
const subject = "{sub}"

func (c *Config) checkAuth() error {
	a := &c.Auth
	names, keys := make(map[string]int), make(map[Secret]int)
	for i, k := range a.APIKeys {
		at := fmt.Sprintf("auth.api_keys[%d]", i)
		if err := k.check(at); err != nil {
			return err
		}
		if first, ok := names[k.Name]; ok {
			return fmt.Errorf("%s.name: %q is the name of auth.api_keys[%d] too; give each key its own", at, k.Name, first)
		}
		if first, ok := keys[k.Key+k.SHA256]; ok {
			return fmt.Errorf("%s is the same key as auth.api_keys[%d]; give each its own, or remove one", at, first)
		}
		names[k.Name], keys[k.Key+k.SHA256] = i, i
	}
	if err := a.JWT.check(); err != nil {
		return err
	}
	if err := checkCookie(a.Cookie, a.JWT.Secret != ""); err != nil {
		return err
	}
	if err := a.checkAnonymous(); err != nil {
		return err
	}
	return c.checkOpen()
}

func (k *APIKey) check(at string) error {
	if k.Name == "" {
		return fmt.Errorf("%s has no name; give it one, such as name: orders-backend", at)
	}
	if protocol.CheckTopic(k.Name) != nil || strings.ContainsAny(k.Name, ".*>$") {
		return fmt.Errorf("%s.name: %q is not one token; write letters, digits, '-' and '_'", at, k.Name)
	}
	switch {
	case k.Key == "" && k.SHA256 == "":
		return fmt.Errorf("%s (%s) has no key; write key: %s and at least %d random characters, such as `openssl rand -hex 24` prints", at, k.Name, KeyPrefix, minKeyBytes-len(KeyPrefix))
	case k.Key != "" && k.SHA256 != "":
		return fmt.Errorf("%s (%s) has both key and sha256; keep one of them", at, k.Name)
	case k.Key != "" && !strings.HasPrefix(k.Key.Reveal(), KeyPrefix):
		return fmt.Errorf("%s.key (%s) does not begin with %s; put that in front of it, here and where it is used", at, k.Name, KeyPrefix)
	case k.Key != "" && len(k.Key) < minKeyBytes:
		return fmt.Errorf("%s.key (%s) has %d characters, which can be guessed; write %s and at least %d random ones, such as `openssl rand -hex 24` prints", at, k.Name, len(k.Key), KeyPrefix, minKeyBytes-len(KeyPrefix))
	case strings.ContainsAny(k.Key.Reveal(), " \t\r\n"):
		return fmt.Errorf("%s.key (%s) has white space in it, which no header carries; remove it", at, k.Name)
	}
	if k.SHA256 != "" {
		if sum, err := hex.DecodeString(k.SHA256.Reveal()); err != nil || len(sum) != 32 {
			return fmt.Errorf("%s.sha256 (%s) is not a SHA-256 in hex; write the 64 digits that `printf %%s KEY | sha256sum` prints", at, k.Name)
		}
	}
	return k.Permissions.check(at, true)
}

func (j *JWT) check() error {
	if n := len(j.Secret); n > 0 && n < minSecretBytes {
		return fmt.Errorf("auth.jwt.secret has %d bytes, but HS256 needs at least %d; use what `openssl rand -base64 32` prints", n, minSecretBytes)
	}
	if j.Secret == "" && j.Issuer+j.Audience != "" {
		return fmt.Errorf("auth.jwt.issuer and auth.jwt.audience mean nothing without a secret; set auth.jwt.secret or auth.jwt.secret_file too")
	}
	return nil
}

func (a *Auth) checkAnonymous() error {
	p := Permissions(a.Anonymous)
	if err := p.check("auth.anonymous", false); err != nil {
		return err
	}
	if a.Anonymous.Said() && !a.Anonymous.Allows() && !a.Configured() {
		return fmt.Errorf("auth.anonymous allows nothing, and nobody can be anything else; remove it, or set auth.api_keys or auth.jwt.secret")
	}
	return nil
}

func checkCookie(name string, tokens bool) error {
	if name == "" {
		return nil
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }) {
		return fmt.Errorf("auth.cookie: %q is not the name of a cookie; write letters, digits, '-' and '_'", name)
	}
	if !tokens {
		return fmt.Errorf("auth.cookie is set without a secret, so no cookie is valid; set auth.jwt.secret or auth.jwt.secret_file too")
	}
	return nil
}

// check checks the filters. Whether {sub} may be used depends on whether there
// is a subject.
func (p *Permissions) check(at string, templates bool) error {
	for _, list := range []struct {
		name    string
		filters []string
	}{{"publish", p.Publish}, {"subscribe", p.Subscribe}, {"consume", p.Consume}} {
		for i, f := range list.filters {
			if err := CheckFilter(f, templates); err != nil {
				return fmt.Errorf("%s.%s[%d]: %w", at, list.name, i, err)
			}
		}
	}
	return nil
}

// CheckFilter checks a filter of a permission, in which {sub} may stand for a
// token or a part of one if templates is true.
func CheckFilter(f string, templates bool) error {
	if !templates && strings.Contains(f, subject) {
		return fmt.Errorf("%q has %s in it, but there is no subject here; write the filter without it", f, subject)
	}
	plain := f
	if templates {
		plain = strings.ReplaceAll(f, subject, "x")
	}
	if i, j := strings.IndexByte(plain, '{'), strings.IndexByte(plain, '}'); i >= 0 && j > i && templates {
		return fmt.Errorf("%q has %s in it, which is not known; %s is the only template", f, plain[i:j+1], subject)
	}
	if _, err := protocol.ParseFilter(plain); err != nil {
		message := protocol.AsError(err).Message
		if plain == f {
			return errors.New(message)
		}
		return fmt.Errorf("%q, with x for %s: %s", f, subject, message)
	}
	return nil
}

func (c *Config) checkOrigins() error {
	for i, o := range c.AllowedOrigins {
		at := fmt.Sprintf("allowed_origins[%d]", i)
		if o == "*" || o == "null" {
			if c.Auth.Cookie != "" {
				return fmt.Errorf("%s: %q would let any page use its visitors' cookies (auth.cookie is set); write the origins of your pages, such as https://app.example.com", at, o)
			}
			continue
		}
		u, err := url.Parse(o)
		if err != nil || u.Scheme == "" || strings.Trim(u.Host, ":*") != u.Host || u.Host == "" || o != u.Scheme+"://"+u.Host {
			return fmt.Errorf("%s: %q is not an origin; write scheme://host or scheme://host:port without a path or a final /, such as https://app.example.com", at, o)
		}
	}
	return nil
}

func (c *Config) checkHosts() error {
	for i, h := range c.AllowedHosts {
		if h == "" || strings.ContainsAny(h, "/ @*") {
			return fmt.Errorf("allowed_hosts[%d]: %q is not a host; write a name as it stands in URLs, such as push.example.com or push.example.com:8443", i, h)
		}
	}
	return nil
}
