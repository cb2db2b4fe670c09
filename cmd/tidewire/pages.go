package main

import (
	"fmt"
	"io/fs"
	"path"

	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/clients/demo"
	sdk "github.com/tidewire/tidewire/clients/js"
)

// types are those of the files that pages load. Others are not served: the name
// of a file does not make its content harmless.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// demoPolicy lets the page load what the broker serves and nothing else, and
// connect to brokers.
const demoPolicy = "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// pages returns the files that a broker serves: the SDK, as modules for pages and
// as a package for npm, and for development the demo.
func pages(version string, dev bool) ([]server.File, error) {
	// Packing takes a while that a start need not wait for.
	pack := func() ([]byte, error) { return sdk.Pack(sdk.Files, version) }
	all := []server.File{{Path: "/sdk/client.tgz", Type: "application/gzip", Make: pack, Anywhere: true}}
	modules, err := filesOf(sdk.Files, "served", "/sdk/")
	if err != nil {
		return nil, err
	}
	for _, f := range modules {
		f.Anywhere = true
		all = append(all, f)
	}
	if !dev {
		return all, nil
	}
	page, err := filesOf(demo.Files, ".", "/demo/")
	if err != nil {
		return nil, err
	}
	for _, f := range page {
		if f.Path == "/demo/index.html" {
			f.Path = "/"
		}
		f.Policy = demoPolicy
		all = append(all, f)
	}
	return all, nil
}

// filesOf returns the files of a directory that pages may load, at paths below at.
func filesOf(files fs.FS, dir, at string) ([]server.File, error) {
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return nil, fmt.Errorf("files that are compiled in: %w", err)
	}
	var all []server.File
	for _, e := range entries {
		kind, known := types[path.Ext(e.Name())]
		if e.IsDir() || !known {
			continue
		}
		text, err := fs.ReadFile(files, path.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("files that are compiled in: %w", err)
		}
		all = append(all, server.File{Path: at + e.Name(), Type: kind, Body: text})
	}
	return all, nil
}
