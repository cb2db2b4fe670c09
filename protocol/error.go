package protocol

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"
	"unicode/utf8"
)

// A Code names a kind of error for programs: lower-case words joined by '_'.
type Code string

// An Error is a refusal: a code for programs and a sentence for people that
// says what to change. It never carries internals, secrets or payloads.
type Error struct {
	Code       Code
	Message    string
	RetryAfter time.Duration // wait at least this long before trying again; 0 if unknown

	limit Limit // that was exceeded; see [Error.TakeLimit]

	// final is set on an error of another version whose code is not in our
	// table: its sender said that trying again is no use.
	final bool
}

// Errorf makes an error with a formatted sentence.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error returns the code and the sentence.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Is makes errors.Is compare codes, so that errors.Is(err, &Error{Code: c})
// asks for a code.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Code == e.Code
}

// Retryable reports whether the same request may succeed later.
func (e *Error) Retryable() bool { return e.Code.Retryable() && !e.final }

// LogValue keeps log lines short and free of content.
func (e *Error) LogValue() slog.Value { return slog.StringValue(string(e.Code)) }

// AsError returns err as an *Error: itself if it is one, else an internal error
// that says nothing of err's text. nil stays nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return Errorf(CodeInternal, "something went wrong inside the broker; its log says more")
}

// maxQuoteBytes is how much of an input an error sentence repeats.
const maxQuoteBytes = 80

// quote prints input for an error sentence: quoted and bounded.
func quote(s string) string {
	if len(s) <= maxQuoteBytes {
		return strconv.Quote(s)
	}
	end := maxQuoteBytes
	for end > maxQuoteBytes-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return strconv.Quote(s[:end]) + "..."
}
