// Command kafka runs real Kafka on this machine until Ctrl-C, for trying things
// out. It prints the addresses for clients on standard output once they answer.
//
//	go run ./tests/kafka/cmd/kafka [-nodes 3] [-dir DIR] [-port 9092]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tidewire/tidewire/tests/kafka"
)

func main() {
	var o kafka.Options
	flag.IntVar(&o.Nodes, "nodes", 1, "how many nodes; 3 can lose one")
	flag.StringVar(&o.Dir, "dir", "", "where data and logs are kept (default: nowhere, they are removed at the end)")
	flag.IntVar(&o.Port, "port", 9092, "port of the first node, the others follow; 0 takes free ones")
	flag.BoolVar(&o.SASL, "sasl", false, fmt.Sprintf("a listener besides for user %q with password %q, by PLAIN or SCRAM", kafka.User, kafka.Password))
	flag.BoolVar(&o.TLS, "tls", false, "a listener with TLS besides")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o kafka.Options) error {
	fmt.Fprintf(os.Stderr, "Starting Kafka %s; the first time fetches it, 45 MB.\n", kafka.Version)
	c, err := kafka.Start(ctx, o)
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(c.Addresses(kafka.Plain), ","))
	for _, l := range []kafka.Listener{kafka.SASL, kafka.TLS, kafka.SASLTLS} {
		if all := c.Addresses(l); len(all) > 0 {
			fmt.Fprintf(os.Stderr, "%s: %s\n", l, strings.Join(all, ","))
		}
	}
	if o.TLS {
		fmt.Fprintf(os.Stderr, "Authority of the certificate: %s\n", c.CertificateFile())
	}
	fmt.Fprintf(os.Stderr, "Data and logs are in %s. Ctrl-C ends it.\n", c.Dir())
	<-ctx.Done()
	c.Terminate()
	return c.Close()
}
