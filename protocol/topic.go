package protocol

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTopicBytes is the longest topic or filter, in bytes of UTF-8.
const MaxTopicBytes = 255

// CheckTopic returns nil if s is a topic that can be published to as far as its
// form goes: 1 to 255 bytes of UTF-8, tokens separated by '.', none of them
// empty, no space, no control character, no '*' and no '>'.
func CheckTopic(s string) *Error {
	if err := checkTokens(s, CodeInvalidTopic, "topic"); err != nil {
		return err
	}
	if strings.ContainsAny(s, "*>") {
		return Errorf(CodeInvalidTopic, "the topic %s has a '*' or '>', which only filters may have", quote(s))
	}
	return nil
}

// IsReserved reports whether the topic belongs to the broker: its first byte is
// '$'. Clients cannot publish to it.
func IsReserved(topic string) bool { return topic != "" && topic[0] == '$' }

// MaxConsumerBytes is the longest name of a consumer.
const MaxConsumerBytes = 128

// CheckConsumer returns nil if s can be the name of a consumer: one token of at
// most 128 bytes that does not begin with '$'.
func CheckConsumer(s string) *Error {
	const what = "name of the consumer"
	switch {
	case len(s) > MaxConsumerBytes:
		return Errorf(CodeBadRequest, "the %s has %d bytes, at most %d are allowed", what, len(s), MaxConsumerBytes).of(LimitConsumer)
	case IsReserved(s):
		return Errorf(CodeBadRequest, "the %s %s begins with '$', choose another first character", what, quote(s))
	case strings.ContainsAny(s, ".*>"):
		return Errorf(CodeBadRequest, "the %s %s has a '.', '*' or '>': it is a single token of a topic", what, quote(s))
	}
	return checkTokens(s, CodeBadRequest, what)
}

// checkTokens checks what topics and filters have in common.
func checkTokens(s string, code Code, what string) *Error {
	switch {
	case s == "":
		return Errorf(code, "the %s is empty", what)
	case len(s) > MaxTopicBytes:
		return Errorf(code, "the %s has %d bytes, at most %d are allowed", what, len(s), MaxTopicBytes).of(LimitTopic)
	case !utf8.ValidString(s):
		return Errorf(code, "the %s is not valid UTF-8", what)
	}
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return Errorf(code, "the %s %s contains the character %U, spaces and control characters are not allowed", what, quote(s), r)
		}
	}
	for token := range strings.SplitSeq(s, ".") {
		if token == "" {
			return emptyToken(s, code, what)
		}
	}
	return nil
}

func emptyToken(s string, code Code, what string) *Error {
	switch {
	case strings.HasSuffix(s, ".") && what == "filter":
		example := s + ">"
		if strings.Trim(quote(example), `"`) != example || strings.Contains(s, "'") {
			example = "orders.>" // theirs is too long or too odd to be typed like this
		}
		return Errorf(code, "the filter %s ends in '.': did the shell take your '>'? Quote it: '%s'", quote(s), example)
	case strings.HasSuffix(s, "."):
		return Errorf(code, "the %s %s ends in '.', remove it or add a token", what, quote(s))
	default:
		return Errorf(code, "the %s %s has an empty token: write one '.' between two tokens and none at the start", what, quote(s))
	}
}
