// Command limit is the yardstick for durable publishing: a file, an append and
// an fdatasync for each batch, and nothing else.
//
//	limit SIZES COMMAND [ARG...]
//
// COMMAND prints how many seconds its work took and leaves the bytes of each of
// its commits in the file SIZES, a number a line. Batches of these sizes are then
// appended to a file beside SIZES. Both take turns, five times.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const rounds = 5

func main() {
	var command, limit, ratio []float64
	for range rounds {
		cmd := exec.Command(os.Args[2], os.Args[3:]...)
		cmd.Stderr = os.Stderr
		seconds, err := strconv.ParseFloat(strings.TrimSpace(string(must(cmd.Output()))), 64)
		command, limit = append(command, must(seconds, err)), append(limit, replay(os.Args[1]))
		ratio = append(ratio, limit[len(limit)-1]/seconds)
	}
	for name, of := range map[string][]float64{"command": command, "limit": limit, "ratio": ratio} {
		slices.Sort(of)
		fmt.Printf("%-8s median %.3f from %.3f to %.3f\n", name, of[rounds/2], of[0], of[rounds-1])
	}
}

// replay appends a batch of each size to a new file and returns the seconds.
func replay(sizes string) float64 {
	lines := bytes.Fields(must(os.ReadFile(sizes)))
	f := must(os.OpenFile(sizes+".append", os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600))
	defer func() { _ = os.Remove(f.Name()) }()
	b, begin := make([]byte, 1<<24), time.Now()
	for _, line := range lines {
		must(f.Write(b[:must(strconv.Atoi(string(line)))]))
		must(0, syscall.Fdatasync(int(f.Fd())))
	}
	must(0, f.Close())
	return time.Since(begin).Seconds()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
