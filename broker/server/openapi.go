package server

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/tidewire/tidewire/docs"
)

// openAPITag names what the document says, for caches.
var openAPITag = sync.OnceValue(func() string {
	hash := sha256.Sum256(docs.OpenAPI)
	return `"` + hex.EncodeToString(hash[:8]) + `"`
})

// openAPI is GET /v1/openapi.yaml. It says nothing about this broker, so anybody
// may read it.
func openAPI(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r); err != nil {
		writeProblem(w, err)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=3600")
	h.Set("ETag", openAPITag())
	if strings.Contains(r.Header.Get("If-None-Match"), openAPITag()) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/yaml")
	h.Set("Content-Length", strconv.Itoa(len(docs.OpenAPI)))
	_, _ = w.Write(docs.OpenAPI)
}
