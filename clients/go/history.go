package tidewire

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// HistoryOptions say which stored messages of a topic to read. The zero value
// begins with the oldest.
type HistoryOptions struct {
	// From is where to begin: `earliest` (default), `new`, `last:N`, a duration
	// before now such as `-10m`, an RFC 3339 time, or a position, which means after
	// it. A page then has the oldest messages from there on.
	From string
	// Before is where to begin backwards, in the same words. A page then has the
	// newest messages before that; `new` gives the newest of all. Not with From.
	Before string
	// Limit is how many messages a page has at most, up to 1,000. A page has no more
	// than about 4 MiB of payload, so it may be shorter. Default: 100.
	Limit int
	// Stream is the stream to read. Default: the one that holds the topic.
	Stream string
}

// A Page is a part of what is stored on a topic.
type Page struct {
	// Messages come oldest first, whichever way pages follow each other.
	Messages []Message
	// Next is From, or Before if that was given, of the page that follows. Of a page
	// forwards it is also a good From of a subscription: nothing is missed between.
	Next string
	// Gap tells of messages that can no longer be had; nil if there are none.
	// Forwards they lie before those of the page, backwards behind them; but where
	// Reason is `retention`, backwards everything before was deleted.
	Gap *GapError
}

// last reports whether nothing follows. A short page says nothing.
func (p *Page) last() bool { return len(p.Messages) == 0 && p.Gap == nil }

const (
	// historyTimeout bounds the wait for the beginning of an answer.
	historyTimeout = 30 * time.Second
	// maxPageBytes bounds an answer: 4 MiB of payload, or one message more, as text
	// with escapes.
	maxPageBytes = 64 << 20

	webSocketPath = "/v1/ws"
)

// History reads one page of what is stored on a topic, over HTTP. It is repeated
// over lost connections and retryable refusals, at each of Options.URLs, until ctx
// ends. Another refusal is an [*Error]; what does not come from a broker is a
// [*HandshakeError]. See [Client.HistoryPages] for all pages.
func (c *Client) History(ctx context.Context, topic string, o HistoryOptions) (*Page, error) {
	if err := o.check(topic); err != nil {
		return nil, err
	}
	c.mu.Lock()
	err := c.refusing()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(ErrClosed) })()
	return c.readHistory(ctx, topic, &o)
}

// HistoryPages reads what is stored on a topic page by page, until there is no
// more: forwards up to the newest message, backwards down to the oldest. The loop
// ends after the first error.
//
// A gap is no error: each page says in Gap what is missing.
func (c *Client) HistoryPages(ctx context.Context, topic string, o HistoryOptions) iter.Seq2[*Page, error] {
	return func(yield func(*Page, error) bool) {
		for {
			p, err := c.History(ctx, topic, o)
			if err != nil {
				yield(nil, err)
				return
			}
			if p.last() || !yield(p, nil) {
				return
			}
			if o.Before != "" {
				o.Before = p.Next
			} else {
				o.From = p.Next
			}
		}
	}
}

func (o *HistoryOptions) check(topic string) error {
	if err := protocol.CheckTopic(topic); err != nil {
		return err
	}
	if o.From != "" && o.Before != "" {
		return protocol.Errorf(protocol.CodeBadRequest, "From and Before are both given: From gives the oldest messages after it, Before the newest before it, leave one of them out")
	}
	if o.Limit < 0 {
		return protocol.Errorf(protocol.CodeBadRequest, "Limit is %d: give the number of messages in a page, or 0 for 100", o.Limit)
	}
	if start := cmp.Or(o.From, o.Before); start != "" {
		if _, err := protocol.ParseStart(start); err != nil {
			return err
		}
	}
	return nil
}

// path returns the path and the query of a page.
func (o *HistoryOptions) path(topic string) string {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("from", o.From)
	set("before", o.Before)
	set("stream", o.Stream)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return "/v1/topics/" + url.PathEscape(topic) + "/messages?" + q.Encode()
}

// readHistory asks one target after the other until there is an answer.
func (c *Client) readHistory(ctx context.Context, topic string, o *HistoryOptions) (*Page, error) {
	c.mu.Lock()
	token := c.tokens.shown
	c.mu.Unlock()
	var pause backoff
	replaced := false // the token was: once, or a source of bad ones would be asked for ever
	for attempt := 0; ; attempt++ {
		base, err := c.targets[attempt%len(c.targets)].web()
		if err != nil {
			return nil, err
		}
		p, err := c.getHistory(ctx, base+o.path(topic), token, topic)
		if err == nil || errors.Is(err, errNotHistory) {
			return p, err
		}
		refused, isRefusal := errors.AsType[*HandshakeError](err)
		if isRefusal && !replaced && c.otherToken(ctx, refused, &token) {
			replaced = true
			continue
		}
		if isRefusal && !refused.Retryable {
			return nil, refused.plain()
		}
		wait := time.Duration(0) // another target may answer at once
		if attempt%len(c.targets) == len(c.targets)-1 {
			wait = pause.next()
		}
		if isRefusal {
			wait = max(wait, refused.RetryAfter)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the history of %q was not read: %w; the last attempt: %w", topic, reason(ctx), err)
		}
	}
}

// plain returns what the broker said, if it was a broker that refused.
func (e *HandshakeError) plain() error {
	if e.Err != nil {
		return e.Err
	}
	return e
}

// otherToken puts another token in the place of one that was refused, if there is
// one. The session has its own way.
func (c *Client) otherToken(ctx context.Context, refused *HandshakeError, token *string) bool {
	code := refusedWith(refused)
	if c.options.Token == nil || (code != protocol.CodeTokenExpired && code != protocol.CodeUnauthorized) {
		return false
	}
	other, err := c.options.Token(ctx)
	if err != nil || other == *token {
		return false
	}
	*token = other
	return true
}

// errNotHistory is what an answer that makes no sense is.
var errNotHistory = errors.New("the answer is not a page of history: is this the address of a broker?")

// getHistory asks once. A refusal is a HandshakeError.
func (c *Client) getHistory(ctx context.Context, address, token, topic string) (*Page, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.web.Do(request)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPageBytes))
	if err != nil {
		return nil, err
	}
	return parsePage(topic, body)
}

// parsePage reads docs/http.md's answer of history.
func parsePage(topic string, body []byte) (*Page, error) {
	var form struct {
		Messages []json.RawMessage `json:"messages"`
		Next     string            `json:"next"`
		Gap      *struct {
			Reason   string `json:"reason"`
			Term     string `json:"term"`
			After    uint64 `json:"after"`
			Through  uint64 `json:"through"`
			Position string `json:"position"`
		} `json:"gap"`
	}
	if err := json.Unmarshal(body, &form); err != nil || form.Next == "" {
		return nil, errNotHistory
	}
	p := &Page{Next: form.Next, Messages: make([]Message, len(form.Messages))}
	for i, text := range form.Messages {
		if err := parseStored(text, &p.Messages[i]); err != nil {
			return nil, fmt.Errorf("%w (message %d: %w)", errNotHistory, i, err)
		}
	}
	if g := form.Gap; g != nil {
		p.Gap = &GapError{Filter: topic, Reason: g.Reason, Term: g.Term, After: g.After, Through: g.Through, Position: g.Position}
	}
	return p, nil
}

// parseStored reads the one JSON form with what the broker has added.
func parseStored(text []byte, m *Message) error {
	if err := m.UnmarshalJSON(text); err != nil {
		return err
	}
	var added struct {
		Position  string    `json:"position"`
		Publisher string    `json:"publisher"`
		Time      time.Time `json:"time"`
	}
	err := json.Unmarshal(text, &added)
	if err != nil {
		return err
	}
	m.Publisher, m.Time = added.Publisher, added.Time
	m.Position, err = protocol.ParsePosition(added.Position)
	return err
}

// web returns where the paths of HTTP begin at a target.
func (t *target) web() (string, error) {
	u, err := url.Parse(t.url)
	if err != nil {
		return "", err
	}
	path, ok := strings.CutSuffix(u.Path, webSocketPath)
	if !ok {
		return "", fmt.Errorf("the URL %s does not end in %s, so it is not known where its history is: leave out the path, or end it so", t.url, webSocketPath)
	}
	scheme := "http"
	if t.tls {
		scheme = "https"
	}
	return scheme + "://" + u.Host + path, nil
}

// newWeb returns what speaks HTTP in the way that the options say.
func newWeb(o *Options) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: o.Dial, TLSClientConfig: o.TLS.Clone(), TLSHandshakeTimeout: o.ConnectTimeout,
			ResponseHeaderTimeout: historyTimeout, IdleConnTimeout: historyTimeout, MaxIdleConnsPerHost: 4,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
