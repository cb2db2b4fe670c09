package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// limits is the table of limits.
func limits() []string {
	lines := []string{
		"| limit | setting | default | what is bounded | beyond it |",
		"|---|---|---|---|---|",
	}
	for _, info := range protocol.Limits() {
		setting := "fixed"
		if info.Key != "" {
			setting = "`" + info.Key + "`"
		}
		lines = append(lines, fmt.Sprintf("| `%s` | %s | %s | %s | %s |", info.Limit, setting, amount(info), info.Protects, beyond(info)))
	}
	return lines
}

// amount prints the default of a limit with its unit.
func amount(info protocol.LimitInfo) string {
	if info.Default == 0 {
		return "off"
	}
	switch info.Unit {
	case protocol.UnitTime:
		return time.Duration(info.Default).String()
	case protocol.UnitBytes, protocol.UnitBytesPerSecond:
		return strings.Replace(size(info.Default), "bytes", string(info.Unit), 1)
	}
	return strings.TrimSpace(thousands(info.Default) + " " + string(info.Unit))
}

// size prints a number of bytes.
func size(n int64) string {
	switch {
	case n%(1<<20) == 0:
		return thousands(n>>20) + " MiB"
	case n%(1<<10) == 0:
		return thousands(n>>10) + " KiB"
	}
	return thousands(n) + " bytes"
}

// thousands prints a number for people.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// beyond says what happens at a limit: the refusal, or something else.
func beyond(info protocol.LimitInfo) string {
	var parts []string
	if info.Code != "" {
		code := info.Code.Info()
		text := fmt.Sprintf("`%s`: HTTP %d", info.Code, code.Status)
		if code.Close != 0 {
			text += fmt.Sprintf(", close code %d", code.Close)
		}
		parts = append(parts, text+".")
	}
	if info.Effect != "" {
		parts = append(parts, info.Effect)
	}
	return strings.Join(parts, " ")
}
