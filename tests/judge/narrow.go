package judge

import (
	"context"
	"net"
	"net/http"
)

// narrowBuffer is what the system of a narrow connection takes while nobody
// reads.
const narrowBuffer = 32 << 10

// newNarrow returns a client whose connections buffer little, as over a real
// network, so that the broker feels soon that nobody reads. Over loopback it is
// megabytes otherwise.
func newNarrow() *http.Client {
	dialer := &net.Dialer{Control: smallSegments}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, address)
		if tcp, ok := c.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(narrowBuffer)
		}
		return c, err
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}
