package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// A File is what the public listener answers at a path beside the API: a module
// of the SDK, a page. It is served as it is, to anybody who may call the
// broker's Host, with or without a token.
type File struct {
	Path string // "/sdk/client.js"
	Type string // the Content-Type
	Body []byte

	// Make, if not nil, makes the Body when somebody asks for the file first.
	Make func() ([]byte, error)

	// Anywhere lets pages of every origin load it, also those that lie on a disk.
	// Without, it is for pages of the broker alone.
	Anywhere bool

	Policy string // the Content-Security-Policy, of a page
}

// handler returns what answers with the file. A copy may be kept, but has to be
// compared each time: after an upgrade the modules of the SDK must fit each
// other and the broker.
func (f *File) handler() http.HandlerFunc {
	content := sync.OnceValues(f.content)
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := content()
		if err != nil {
			writeProblem(w, protocol.Errorf(protocol.CodeInternal, "%s cannot be made: %v", f.Path, err))
			return
		}
		h := w.Header()
		h.Set("Content-Type", f.Type)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", c.tag)
		h.Set("X-Content-Type-Options", "nosniff")
		if f.Anywhere {
			h.Set("Access-Control-Allow-Origin", "*")
			h.Del("Access-Control-Allow-Credentials")
			h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		} else {
			h.Set("Cross-Origin-Resource-Policy", "same-origin")
		}
		if f.Policy != "" {
			h.Set("Content-Security-Policy", f.Policy)
			h.Set("Referrer-Policy", "no-referrer")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.body))
	}
}

// content is what a file has, and its name in a cache.
type content struct {
	body []byte
	tag  string
}

func (f *File) content() (content, error) {
	c := content{body: f.Body}
	if f.Make != nil {
		var err error
		if c.body, err = f.Make(); err != nil {
			return content{}, err
		}
	}
	hash := sha256.Sum256(c.body)
	c.tag = `"` + hex.EncodeToString(hash[:8]) + `"`
	return c, nil
}
