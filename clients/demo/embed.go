// Package demo has the page that a broker shows at / with --dev.
package demo

import "embed"

// Files are the page and what it loads from /demo/.
//
//go:embed *.html *.css *.js *.svg
var Files embed.FS
