package main

import (
	"fmt"
	"strconv"

	"github.com/tidewire/tidewire/protocol"
)

// codes is the table of error and close codes.
func codes() []string {
	lines := []string{
		"| code | HTTP status | close code | retryable | meaning |",
		"|---|---|---|---|---|",
	}
	for _, info := range protocol.Codes() {
		closing, retryable := "", "no"
		if info.Close != 0 {
			closing = strconv.Itoa(int(info.Close))
		}
		if info.Retryable {
			retryable = "yes"
		}
		lines = append(lines, fmt.Sprintf("| `%s` | %d | %s | %s | %s |", info.Code, info.Status, closing, retryable, info.Meaning))
	}
	return lines
}
