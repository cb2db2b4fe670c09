// Package docs has the pages that are compiled into the broker.
package docs

import _ "embed" // for the page below

// OpenAPI describes the HTTP surface of a broker, in YAML. It must not be
// changed.
//
//go:embed openapi.yaml
var OpenAPI []byte
