package server

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

// Access says who may come in and what they may do there. The zero value lets
// everybody who can reach the listener do everything.
type Access struct {
	APIKeys   []APIKey
	JWT       JWT
	Anonymous Anonymous

	// Cookie is the name of a cookie that carries a JWT. A browser adds cookies
	// to requests of any page, so it counts only where the browser says that the
	// page is of an allowed origin.
	Cookie string

	// AllowedOrigins are the origins whose pages may use the broker, besides
	// those that it serves itself: https://app.example.com. "*" stands for all,
	// "null" for pages without an origin.
	AllowedOrigins []string

	// AllowedHosts are the names by which clients may call the broker, with or
	// without a port. Loopback names are always allowed.
	AllowedHosts []string

	// Loopback says that the public listener is on a loopback address: then a
	// foreign name in the Host header is a page that has rebound its name.
	Loopback bool
}

// An APIKey is how a backend says who it is.
type APIKey struct {
	Name   string // becomes the publisher of its messages
	Key    string // begins with twk_; or
	SHA256 string // its hash in hex, so that a configuration need not hold the key

	Publish   []string // filters; {sub} stands for Name
	Subscribe []string
	Consume   []string
}

// JWT says which tokens are believed. Only HS256 is.
type JWT struct {
	Secret   []byte        // at least 32 bytes; none means that no token is believed
	Leeway   time.Duration // by which clocks may differ
	Issuer   string        // if given, the token's `iss`
	Audience string        // if given, one of the token's `aud`
}

// Anonymous says what a request without a token may do. If it says nothing: all,
// if neither keys nor a secret are configured, and else nothing.
type Anonymous struct {
	Publish   []string
	Subscribe []string
	Consume   []string
}

const (
	keyPrefix      = "twk_"
	minSecretBytes = 32 // RFC 7518, 3.2: at least the size of the hash
)

// access is Access, checked and ready for use. It is never changed.
type access struct {
	keys      []apiKey
	parser    *jwt.Parser // nil if no token is believed
	secret    []byte
	leeway    time.Duration
	claimed   [2]string // issuer and audience that tokens must have
	cookie    string
	anonymous *broker.Identity // nil if there is none

	origins map[string]bool
	hosts   map[string]bool
	dev     bool
	local   bool // only the listed hosts and loopback names may be called
}

type apiKey struct {
	hash     [sha256.Size]byte
	identity *broker.Identity
}

// newAccess checks a. Its errors are for whoever wrote the configuration.
func newAccess(a Access, dev bool) (*access, error) {
	out := &access{
		secret: a.JWT.Secret, leeway: a.JWT.Leeway, claimed: [2]string{a.JWT.Issuer, a.JWT.Audience}, cookie: a.Cookie, dev: dev,
		local: a.Loopback || dev || len(a.AllowedHosts) > 0,
	}
	if err := out.addKeys(a.APIKeys); err != nil {
		return nil, err
	}
	if err := out.setJWT(a); err != nil {
		return nil, err
	}
	if err := out.setAnonymous(a); err != nil {
		return nil, err
	}
	if err := out.setOrigins(a.AllowedOrigins); err != nil {
		return nil, err
	}
	if a.Cookie != "" && out.origins["*"] {
		return nil, fmt.Errorf("allowed_origins has \"*\", which would let every page act with the cookie %q: list the origins", a.Cookie)
	}
	return out, out.setHosts(a.AllowedHosts)
}

func (a *access) addKeys(keys []APIKey) error {
	seen := map[[sha256.Size]byte]bool{}
	for i, k := range keys {
		what := fmt.Sprintf("API key %d (%q)", i+1, k.Name)
		hash, err := k.hash()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if seen[hash] {
			return fmt.Errorf("%s: the same key is listed before", what)
		}
		seen[hash] = true
		if k.Name == "" {
			return fmt.Errorf("%s: the name is missing", what)
		}
		id, perr := grants{k.Publish, k.Subscribe, k.Consume}.identity(k.Name)
		if perr != nil {
			return fmt.Errorf("%s: %s", what, perr.Message)
		}
		a.keys = append(a.keys, apiKey{hash: hash, identity: id})
	}
	return nil
}

func (k *APIKey) hash() ([sha256.Size]byte, error) {
	switch {
	case (k.Key == "") == (k.SHA256 == ""):
		return [sha256.Size]byte{}, fmt.Errorf("give either key or sha256")
	case k.Key != "" && (!strings.HasPrefix(k.Key, keyPrefix) || len(k.Key) == len(keyPrefix)):
		return [sha256.Size]byte{}, fmt.Errorf("a key begins with %s", keyPrefix)
	case k.Key != "":
		return sha256.Sum256([]byte(k.Key)), nil
	}
	b, err := hex.DecodeString(k.SHA256)
	if err != nil || len(b) != sha256.Size {
		return [sha256.Size]byte{}, fmt.Errorf("sha256 is not a hash of %d hex digits", 2*sha256.Size)
	}
	return [sha256.Size]byte(b), nil
}

func (a *access) setJWT(o Access) error {
	if len(o.JWT.Secret) == 0 {
		if o.JWT.Issuer != "" || o.JWT.Audience != "" || o.Cookie != "" {
			return fmt.Errorf("the JWT secret is missing: issuer, audience and cookie mean nothing without it")
		}
		return nil
	}
	if n := len(o.JWT.Secret); n < minSecretBytes {
		return fmt.Errorf("the JWT secret has %d bytes, HS256 needs at least %d: make one with `openssl rand -hex 32`", n, minSecretBytes)
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithLeeway(o.JWT.Leeway), jwt.WithStrictDecoding(),
	}
	if o.JWT.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.JWT.Issuer))
	}
	if o.JWT.Audience != "" {
		options = append(options, jwt.WithAudience(o.JWT.Audience))
	}
	a.parser = jwt.NewParser(options...)
	return nil
}

func (a *access) setAnonymous(o Access) error {
	g := grants{o.Anonymous.Publish, o.Anonymous.Subscribe, o.Anonymous.Consume}
	if len(g.publish)+len(g.subscribe)+len(g.consume) == 0 {
		if len(a.keys) > 0 || a.parser != nil {
			return nil
		}
		g = grants{[]string{">"}, []string{">", "$dead.>"}, []string{">", "$dead.>"}}
	}
	id, err := g.identity("")
	if err != nil {
		return fmt.Errorf("anonymous: %s", err.Message)
	}
	a.anonymous = id
	return nil
}

// grants are the filters of a key, a token or the configuration, as written.
type grants struct {
	publish, subscribe, consume []string
}

// subTemplate stands for the subject in a filter.
const subTemplate = "{sub}"

// identity puts the subject into the grants.
func (g grants) identity(subject string) (*broker.Identity, *protocol.Error) {
	if err := checkSubject(subject); err != nil {
		return nil, err
	}
	id := &broker.Identity{Subject: subject}
	for _, part := range []struct {
		name    string
		filters []string
		into    *[]protocol.Filter
	}{
		{"publish", g.publish, &id.Publish},
		{"subscribe", g.subscribe, &id.Subscribe},
		{"consume", g.consume, &id.Consume},
	} {
		for _, text := range part.filters {
			f, err := expand(text, subject)
			if err != nil {
				return nil, protocol.Errorf(protocol.CodeUnauthorized, "%s: %s", part.name, err.Message)
			}
			*part.into = append(*part.into, f)
		}
	}
	return id, nil
}

// checkSubject refuses a subject that no message could carry as its publisher.
func checkSubject(subject string) *protocol.Error {
	if len(subject) > protocol.MaxPublisherBytes || !printable(subject) {
		return protocol.Errorf(protocol.CodeUnauthorized, "the subject is longer than %d bytes or has a control character", protocol.MaxPublisherBytes)
	}
	return nil
}

// expand puts a subject into a filter. The result selects at most what the
// filter would select with '*' in place of the template: a subject that is more
// than a part of one token, or that leads to the topics of the broker, is
// refused.
func expand(text, subject string) (protocol.Filter, *protocol.Error) {
	if strings.Contains(text, subTemplate) {
		if err := checkTemplateSubject(subject); err != nil {
			return protocol.Filter{}, err
		}
	}
	if rest := strings.ReplaceAll(text, subTemplate, ""); strings.ContainsAny(rest, "{}") {
		return protocol.Filter{}, protocol.Errorf(protocol.CodeUnauthorized, "the filter %.80q has a template that is not known, only %s is", text, subTemplate)
	}
	f, err := protocol.ParseFilter(strings.ReplaceAll(text, subTemplate, subject))
	if err != nil {
		return protocol.Filter{}, protocol.AsError(err)
	}
	return f, nil
}

func checkTemplateSubject(subject string) *protocol.Error {
	if subject == "" {
		return protocol.Errorf(protocol.CodeUnauthorized, "a filter has %s, but there is no subject", subTemplate)
	}
	if protocol.CheckTopic(subject) != nil || strings.ContainsAny(subject, ".{}") || protocol.IsReserved(subject) {
		return protocol.Errorf(protocol.CodeUnauthorized, "the subject %.80q cannot stand for %s: it must be one token, without '.', '*', '>', '{', '}', spaces and a '$' at its start", subject, subTemplate)
	}
	return nil
}

// admit decides about a request: may its Host be called, may its page call, and
// who is it.
func (s *Server) admit(r *http.Request) (*broker.Identity, *protocol.Error) {
	if err := s.access().checkHost(r); err != nil {
		return nil, err
	}
	if err := s.access().checkOrigin(r); err != nil {
		return nil, err
	}
	return s.access().identify(r)
}

// publisher is admit for who publishes over HTTP: those without a subject are
// told apart by where they come from.
func (s *Server) publisher(r *http.Request) (*broker.Identity, *protocol.Error) {
	who, err := s.admit(r)
	if err != nil || who.Subject != "" {
		return who, err
	}
	v, ok := r.Context().Value(guestKey{}).(*guest)
	if !ok || !v.from.IsValid() {
		return who, nil
	}
	from := *who
	from.Source = v.from.String()
	return &from, nil
}
