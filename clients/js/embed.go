// Package sdk has the SDK for browsers as it was built, so that a broker can
// serve it: modules for pages, and the package for npm.
package sdk

import "embed"

// Files are dist, served, package.json, README.md and LICENSE of this directory.
//
//go:embed dist served package.json README.md LICENSE
var Files embed.FS
