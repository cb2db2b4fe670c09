package server

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// problem is the body of a refusal, RFC 9457, with the code and the verdict
// that clients of every protocol get.
type problem struct {
	Title        string        `json:"title"`
	Status       int           `json:"status"`
	Detail       string        `json:"detail"`
	Code         protocol.Code `json:"code"`
	Retryable    bool          `json:"retryable"`
	RetryAfterMS int64         `json:"retry_after_ms,omitempty"`
}

// problemOf returns the form of an error. `type` is left out, which stands for
// about:blank: `code` says what kind it is, and `title` what its status means.
func problemOf(err *protocol.Error) problem {
	info := err.Code.Info()
	return problem{
		Title: http.StatusText(info.Status), Status: info.Status, Detail: err.Message,
		Code: err.Code, Retryable: info.Retryable, RetryAfterMS: err.RetryAfter.Milliseconds(),
	}
}

// writeProblem answers a request with an error.
func writeProblem(w http.ResponseWriter, err *protocol.Error) {
	if out, ok := w.(*response); ok {
		out.refusal = err
	}
	p := problemOf(err)
	h := w.Header()
	if err.RetryAfter > 0 {
		seconds := (err.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	} else if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusInsufficientStorage {
		h.Set("Retry-After", "1")
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="tidewire"`)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(p.Status)
	_ = writeJSON(w, p)
}

// writeJSON writes v and a newline, which terminals like.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
