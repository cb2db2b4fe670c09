package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

// maxTokenBytes bounds what is decoded before a signature is checked.
var maxTokenBytes = protocol.LimitToken.Default()

// farFuture bounds expiries, so that arithmetic on them is safe: some issuers
// write milliseconds where seconds belong.
var farFuture = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// claims are what a token may say. `publish`, `subscribe` and `consume` are
// lists of filters, or one filter.
type claims struct {
	jwt.RegisteredClaims
	Publish   jwt.ClaimStrings `json:"publish"`
	Subscribe jwt.ClaimStrings `json:"subscribe"`
	Consume   jwt.ClaimStrings `json:"consume"`
}

// UnmarshalJSON refuses what the library lets pass: times that are texts, which
// others compare as texts, and null, which would be a token without an end.
func (c *claims) UnmarshalJSON(b []byte) error {
	var times struct {
		Expires   json.RawMessage `json:"exp"`
		NotBefore json.RawMessage `json:"nbf"`
		Issued    json.RawMessage `json:"iat"`
	}
	if err := json.Unmarshal(b, &times); err != nil {
		return err
	}
	for _, t := range []json.RawMessage{times.Expires, times.NotBefore, times.Issued} {
		if len(t) > 0 && t[0] != '-' && (t[0] < '0' || t[0] > '9') {
			return errNotNumber
		}
	}
	type plain claims
	return json.Unmarshal(b, (*plain)(c))
}

var (
	errNotNumber = errors.New("a time is not a number")
	errCritical  = errors.New("the header crit is not understood")
)

// key is the secret for a token whose header is understood. RFC 7515, 4.1.11:
// what `crit` lists must be understood, or the token is refused. Nothing that it
// could list is.
func (a *access) key(t *jwt.Token) (any, error) {
	if _, found := t.Header["crit"]; found {
		return nil, errCritical
	}
	return a.secret, nil
}

// identify says who sent a request. A token that is given and does not hold is
// an error; only a request without one is anonymous.
func (a *access) identify(r *http.Request) (*broker.Identity, *protocol.Error) {
	token, found, err := a.token(r)
	switch {
	case err != nil:
		return nil, err
	case found:
		return a.identifyToken(token)
	case a.anonymous == nil:
		return nil, unauthorized("a token is needed: send the header `Authorization: Bearer TOKEN`, or from a page the subprotocol %sTOKEN", bearerSubprotocol)
	}
	return a.anonymous, nil
}

// token finds the token of a request.
func (a *access) token(r *http.Request) (token string, found bool, err *protocol.Error) {
	if values := r.Header.Values("Authorization"); len(values) > 0 {
		token, err = bearer(values)
		return token, true, err
	}
	if isUpgrade(r) {
		if token, found, err = subprotocolToken(r); found {
			return token, true, err
		}
	}
	if a.cookie == "" || !a.fromAllowedPage(r) {
		return "", false, nil
	}
	cookies := r.CookiesNamed(a.cookie)
	switch {
	case len(cookies) == 0:
		return "", false, nil
	case len(cookies) > 1:
		return "", true, unauthorized("the cookie %s is given %d times: delete those of other paths and domains", a.cookie, len(cookies))
	case strings.HasPrefix(cookies[0].Value, keyPrefix):
		return "", true, keyInBrowser()
	}
	return cookies[0].Value, true, nil
}

func bearer(values []string) (string, *protocol.Error) {
	if len(values) > 1 {
		return "", unauthorized("the header Authorization is given %d times, give it once", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(token) == "" {
		return "", unauthorized("the header Authorization must be `Bearer TOKEN`")
	}
	return strings.TrimSpace(token), nil
}

func subprotocolToken(r *http.Request) (token string, found bool, err *protocol.Error) {
	for _, name := range subprotocols(r) {
		value, ok := strings.CutPrefix(name, bearerSubprotocol)
		switch {
		case !ok:
			continue
		case found:
			return "", true, unauthorized("there are several subprotocols %sTOKEN, give one", bearerSubprotocol)
		case strings.HasPrefix(value, keyPrefix):
			return "", true, keyInBrowser()
		}
		token, found = value, true
	}
	return token, found, nil
}

func keyInBrowser() *protocol.Error {
	return unauthorized("API keys are for backends, which send them in the header Authorization; give pages a JWT")
}

// identifyToken says who has a token. A refreshed token of a running session
// comes here too.
func (a *access) identifyToken(token string) (*broker.Identity, *protocol.Error) {
	switch {
	case token == "":
		return nil, unauthorized("the token is empty")
	case len(token) > maxTokenBytes:
		return nil, protocol.Exceeded(protocol.LimitToken, "the token has %d bytes, at most %d are allowed", len(token), maxTokenBytes)
	case strings.HasPrefix(token, keyPrefix):
		return a.identifyKey(token)
	case a.parser == nil:
		return nil, unauthorized("this broker takes no JWT: none is configured; leave the token out or use an API key")
	}
	var c claims
	_, err := a.parser.ParseWithClaims(token, &c, a.key)
	if err != nil {
		return nil, tokenError(err)
	}
	id, perr := grants{c.Publish, c.Subscribe, c.Consume}.identity(c.Subject)
	if perr != nil {
		return nil, unauthorized("the token is not valid: %s", perr.Message)
	}
	if c.ExpiresAt != nil {
		id.Expires = c.ExpiresAt.Add(a.leeway)
		if id.Expires.After(farFuture) {
			id.Expires = farFuture
		}
	}
	return id, nil
}

// identifyKey looks at every key whatever it finds, and compares hashes: how
// long it takes says nothing about a key.
func (a *access) identifyKey(key string) (*broker.Identity, *protocol.Error) {
	hash := sha256.Sum256([]byte(key))
	var found *broker.Identity
	for i := range a.keys {
		if subtle.ConstantTimeCompare(hash[:], a.keys[i].hash[:]) == 1 {
			found = a.keys[i].identity
		}
	}
	if found == nil {
		return nil, unauthorized("the API key is not known: check that it is whole and that this broker has it")
	}
	return found, nil
}

// tokenError says what is wrong with a token in our own words: those of the
// library may hold parts of it.
func tokenError(err error) *protocol.Error {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		// Not unauthorized: who can get a new token comes back with it.
		return protocol.Errorf(protocol.CodeTokenExpired, "the token has expired: get a new one")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return unauthorized("the token is not valid yet (nbf): compare the clocks of issuer and broker")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return unauthorized("the token is from another issuer (iss) than this broker believes")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return unauthorized("the token is for another audience (aud) than this broker")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return unauthorized("the token lacks a claim that this broker needs: exp, iss or aud")
	case errors.Is(err, errCritical):
		return unauthorized("the token's header has crit, which asks for extensions that this broker does not know: sign it without")
	case errors.Is(err, errNotNumber):
		return unauthorized("the token's times (exp, nbf, iat) must be numbers, seconds since 1970, not texts or null")
	case errors.Is(err, jwt.ErrTokenMalformed):
		return unauthorized("the token is not a JWT with the claims sub, exp (seconds since 1970) and publish, subscribe, consume (lists of filters)")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return unauthorized("the token's signature does not hold: sign it with HS256 and the secret of this broker")
	default:
		return unauthorized("the token is not valid")
	}
}

func unauthorized(format string, args ...any) *protocol.Error {
	return protocol.Errorf(protocol.CodeUnauthorized, format, args...)
}

// printable reports whether s is UTF-8 without control characters.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
