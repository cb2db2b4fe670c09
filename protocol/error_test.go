package protocol

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestErrors(t *testing.T) {
	e := Errorf(CodeStorageFull, "the disk is full")
	wrapped := fmt.Errorf("publish: %w", e)
	if !errors.Is(wrapped, &Error{Code: CodeStorageFull}) || errors.Is(wrapped, &Error{Code: CodeInternal}) || errors.Is(e, io.EOF) {
		t.Error("errors.Is does not compare codes")
	}
	if AsError(wrapped) != e || AsError(nil) != nil {
		t.Error("AsError loses the error")
	}
	if got := AsError(fmt.Errorf("open /secret: %w", io.EOF)); got.Code != CodeInternal || strings.Contains(got.Error(), "secret") {
		t.Errorf("AsError tells internals: %v", got)
	}
	if e.LogValue().String() != "storage_full" || e.Error() != "storage_full: the disk is full" {
		t.Errorf("%v, %v", e.LogValue(), e)
	}
	request := &RequestError{Ref: 1, Err: e}
	if !errors.Is(request, e) || request.Error() != e.Error() {
		t.Error("a RequestError hides its error")
	}
}

func TestErrorFrames(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{
		0: 0, -time.Second: 0, 1: time.Millisecond, time.Second: time.Second, math.MaxInt64: math.MaxUint32 * time.Millisecond,
	} {
		got := FrameError(ErrorFrame(1, 2, &Error{Code: CodeOverloaded, Message: "m", RetryAfter: in}))
		if *got != (Error{Code: CodeOverloaded, Message: "m", RetryAfter: want}) {
			t.Errorf("retry after %v becomes %+v", in, got)
		}
	}
	for _, info := range Codes() {
		if got := FrameError(ErrorFrame(0, 0, &Error{Code: info.Code})); got.Retryable() != info.Retryable || *got != (Error{Code: info.Code}) {
			t.Errorf("%s becomes %+v", info.Code, got)
		}
	}
	for _, retryable := range []bool{true, false} { // a code of a later version
		f := ErrorFrame(0, 0, &Error{Code: "later"})
		f.Retryable = retryable
		if got := FrameError(f); got.Retryable() != retryable {
			t.Errorf("an unknown code that is retryable=%v becomes %v", retryable, got.Retryable())
		}
	}
	if FrameError(nil) != nil {
		t.Error("no error becomes an error")
	}
}

func TestQuoteIsBounded(t *testing.T) {
	for _, s := range []string{"", "a", strings.Repeat("a", maxQuoteBytes), strings.Repeat("a", maxQuoteBytes+1), strings.Repeat("é", 1000), "a" + strings.Repeat("\U0001f600", 1000), strings.Repeat("\xff", 1000), strings.Repeat("\x80", 1000)} {
		got := quote(s)
		if !utf8.ValidString(got) || len(got) > 4*maxQuoteBytes+5 || strings.HasSuffix(got, "...") != (len(s) > maxQuoteBytes) {
			t.Errorf("quote(%.10q, %d bytes) = %s", s, len(s), got)
		}
	}
}

func TestCodes(t *testing.T) {
	codes, closes := map[Code]bool{}, map[uint16]Code{}
	for _, info := range Codes() {
		if codes[info.Code] {
			t.Errorf("%s is in the table twice", info.Code)
		}
		codes[info.Code] = true
		if info.Code.Info() != info || info.Code.Retryable() != info.Retryable {
			t.Errorf("%s.Info() = %+v", info.Code, info.Code.Info())
		}
		if info.Status < 400 || info.Status > 599 || !strings.HasSuffix(info.Meaning, ".") || strings.Contains(info.Meaning, "|") {
			t.Errorf("%+v is not fit for the table", info)
		}
		if strings.Trim(string(info.Code), "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("%s is not lower-case words joined by '_'", info.Code)
		}
		if info.Close == 0 {
			continue
		}
		if other, taken := closes[info.Close]; taken {
			t.Errorf("%s and %s have the close code %d", info.Code, other, info.Close)
		}
		closes[info.Close] = info.Code
		low, high := uint16(3000), uint16(3499)
		if !info.Retryable {
			low, high = 3500, 3999
		}
		if info.Close < low || info.Close > high || CloseRetryable(info.Close) != info.Retryable {
			t.Errorf("%s: close code %d does not say retryable=%v", info.Code, info.Close, info.Retryable)
		}
	}
	if info := Code("later").Info(); info.Code != "later" || info.Close != CodeInternal.Info().Close || CloseRetryable(info.Close) != info.Retryable {
		t.Errorf("an unknown code has %+v", info)
	}
}

func TestCloseRetryable(t *testing.T) {
	final := map[uint16]bool{1002: true, 1003: true, 1007: true, 1008: true, 1009: true, 1010: true}
	for code := range uint16(math.MaxUint16) {
		want := !final[code] && (code < 3500 || code > 3999) && (code < 4500 || code > 4999)
		if CloseRetryable(code) != want {
			t.Errorf("CloseRetryable(%d) = %v", code, !want)
		}
	}
}
