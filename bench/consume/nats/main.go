// Command nats is a NATS server with JetStream: the peer of bench/consume, a
// process of its own.
//
//	nats CONFIGURATION DIRECTORY
//
// It keeps its streams in DIRECTORY, listens on free ports of 127.0.0.1, prints
// the URLs of the clients' listener and of the profiles, and stops when its input
// ends.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench/consume/nats:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("give a configuration file and a directory")
	}
	options, err := server.ProcessConfigFile(args[0])
	if err != nil {
		return err
	}
	options.StoreDir = args[1]
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the server was not ready after 10 s")
	}
	fmt.Printf("%s %s\n", s.ClientURL(), s.ProfilerAddr())
	_, err = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	s.WaitForShutdown()
	return err
}
