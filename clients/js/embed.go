// Package sdk has the SDK for browsers as it was built, so that a broker can
// serve it: modules for pages, and the package for npm.
package sdk

import "embed"

// Files are dist, served, package.json and README.md of this directory.
//
//go:embed dist served package.json README.md
var Files embed.FS
