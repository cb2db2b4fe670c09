// Command judge sends load to a broker and says what it lost.
//
//	judge run -dir DIR [-url ws://127.0.0.1:7070] [-duration 10s] ...
//	judge verdict DIR
//
// Whatever is to happen to the broker happens outside, between start and end.
// It ends with 1 if it found a fault.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/tidewire/tidewire/tests/judge"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "verdict":
		return verdict(args[1])
	case len(args) > 0 && args[0] == "run":
		return load(args[1:])
	default:
		return fmt.Errorf("usage: judge run -dir DIR [-url URL] [-duration D] ..., or judge verdict DIR")
	}
}

func load(args []string) error {
	var p judge.Plan
	var urls string
	f := flag.NewFlagSet("judge run", flag.ContinueOnError)
	f.StringVar(&urls, "url", "ws://127.0.0.1:7070", "brokers, separated by commas")
	f.StringVar(&p.Dir, "dir", "", "directory for the files, new")
	f.StringVar(&p.Prefix, "prefix", "judge", "first token of the topics")
	f.IntVar(&p.Publishers, "publishers", 4, "publishers")
	f.IntVar(&p.Subscribers, "subscribers", 4, "subscribers' connections")
	f.IntVar(&p.Topics, "topics", 8, "topics")
	f.IntVar(&p.Messages, "messages", 0, "messages by each publisher; 0 = until the duration is over")
	f.DurationVar(&p.Duration, "duration", 10*time.Second, "how long to publish; 0 = until the messages are sent or ^C")
	f.IntVar(&p.PayloadBytes, "payload", 128, "bytes of a payload")
	f.Float64Var(&p.HTTPShare, "http", 0.2, "part of the turns that goes over HTTP")
	f.IntVar(&p.Rate, "rate", 0, "messages a second in all; 0 = no bound")
	f.Uint64Var(&p.Seed, "seed", 0, "seed of everything random; 0 = from the clock")
	f.DurationVar(&p.Tuning.CutEvery, "cut", 0, "mean time between reconnects of a subscriber's own accord")
	f.DurationVar(&p.Tuning.PauseEvery, "pause", 0, "mean time between pauses of a slow subscriber")
	f.DurationVar(&p.Tuning.PauseFor, "pause-for", time.Second, "longest pause of a slow subscriber")
	f.Float64Var(&p.Tuning.SlowShare, "slow", 1, "part of the subscribers that are slow")
	f.DurationVar(&p.Tuning.Patience, "patience", 30*time.Second, "without progress, after which something counts as lost")
	f.BoolVar(&p.Tuning.Retention, "retention", false, "the broker may delete by retention meanwhile")
	f.StringVar(&p.Tuning.Token, "token", "", "token for Authorization: Bearer")
	if err := f.Parse(args); err != nil {
		return err
	}
	p.URLs = strings.Split(urls, ",")
	l, err := judge.Start(context.Background(), p)
	if err != nil {
		return err
	}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(interrupted, l.Stop)
	if err := l.Wait(context.Background()); err != nil {
		return err
	}
	return verdict(p.Dir)
}

func verdict(dir string) error {
	r, err := judge.Verdict(dir)
	if err != nil {
		return err
	}
	if err := r.Print(os.Stdout); err != nil {
		return err
	}
	if n := r.Faults.Total(); n > 0 {
		return fmt.Errorf("%d faults", n)
	}
	return r.Err()
}
