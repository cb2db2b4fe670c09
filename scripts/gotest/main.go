// Command gotest runs "go test -json" with its arguments and prints what a
// person wants to read: one line for each package, the whole output of each
// test that failed, and at the end the tests that were skipped, with their
// reasons. It ends with 1 if anything failed, or if something was skipped
// while the environment variable CI is set.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 1, fmt.Errorf("open the output of go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start go test: %w", err)
	}
	rep := newReport(os.Stdout)
	readErr := rep.read(out)
	waitErr := cmd.Wait()
	if readErr != nil {
		return 1, fmt.Errorf("read the output of go test: %w", readErr)
	}
	if _, exited := errors.AsType[*exec.ExitError](waitErr); waitErr != nil && !exited {
		return 1, fmt.Errorf("wait for go test: %w", waitErr)
	}
	ok := rep.finish(os.Getenv("CI") != "")
	if !ok || waitErr != nil {
		return 1, nil
	}
	return 0, nil
}
