//go:build !unix

package supervisor

// Supported says that this system can supervise: it cannot.
const Supported = false
