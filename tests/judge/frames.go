package judge

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// The frames of the JSON subprotocol, with the fields that the judge needs.
type (
	welcome struct {
		Limits struct {
			InFlight        int `json:"in_flight"`
			PublishMessages int `json:"publish_messages"`
		} `json:"limits"`
		PingIntervalMs int `json:"ping_interval_ms"`
		PingTimeoutMs  int `json:"ping_timeout_ms"`
	}
	published struct {
		Results []result `json:"results"`
	}
	result struct {
		Ref       uint32   `json:"ref"`
		Position  string   `json:"position"`
		Duplicate bool     `json:"duplicate"`
		Error     *failure `json:"error"`
	}
	subscribed struct {
		Sub        uint32   `json:"sub"`
		Position   string   `json:"position"`
		Cursors    []cursor `json:"cursors"`
		Generation uint64   `json:"generation"`
	}
	cursor struct {
		Partition uint32 `json:"partition"`
		Offset    uint64 `json:"offset"`
	}
	deliver struct {
		Sub       uint32    `json:"sub"`
		Partition uint32    `json:"partition"`
		After     uint64    `json:"after"`
		Through   uint64    `json:"through"`
		Position  string    `json:"position"`
		Messages  []message `json:"messages"`
	}
	caughtUp struct {
		Sub uint32 `json:"sub"`
	}
	progress struct {
		Subs      []uint32 `json:"subs"`
		Partition uint32   `json:"partition"`
		Through   uint64   `json:"through"`
		Position  string   `json:"position"`
	}
	gap struct {
		Sub       uint32 `json:"sub"`
		Partition uint32 `json:"partition"`
		Reason    string `json:"reason"`
		After     uint64 `json:"after"`
		Through   uint64 `json:"through"`
		Position  string `json:"position"`
		Offset    uint64 `json:"offset"`
	}
	unsubscribed struct {
		Sub uint32 `json:"sub"`
	}
	acked struct {
		Ref     uint32         `json:"ref"`
		Sub     uint32         `json:"sub"`
		Settled int            `json:"settled"`
		Refused []refusedRange `json:"refused"`
		Error   *failure       `json:"error"`
	}
	refusedRange struct {
		From    string `json:"from"`
		Through string `json:"through"`
		Code    string `json:"code"`
	}
	goAway struct {
		ReconnectAfterMs int `json:"reconnect_after_ms"`
	}
	ping struct {
		Seq uint32 `json:"seq"`
	}
	failure struct {
		Ref          uint32 `json:"ref"`
		Sub          uint32 `json:"sub"`
		Code         string `json:"code"`
		Message      string `json:"message"`
		Retryable    bool   `json:"retryable"`
		RetryAfterMs int    `json:"retry_after_ms"`
	}
)

// decodeFrame returns one of the types above, or nil for a frame that the judge
// does not need.
func decodeFrame(text []byte) (any, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("the frame %.200q cannot be read: %w", text, err)
	}
	var f any
	switch head.Type {
	case "welcome":
		f = new(welcome)
	case "published":
		f = new(published)
	case "subscribed":
		f = new(subscribed)
	case "deliver":
		f = new(deliver)
	case "caught_up":
		f = new(caughtUp)
	case "progress":
		f = new(progress)
	case "gap":
		f = new(gap)
	case "unsubscribed":
		f = new(unsubscribed)
	case "acked":
		f = new(acked)
	case "go_away":
		f = new(goAway)
	case "ping":
		f = new(ping)
	case "error":
		f = new(failure)
	default:
		return nil, nil
	}
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("the frame %.200q cannot be read: %w", text, err)
	}
	return f, nil
}

// message is a message as it is published and delivered.
type message struct {
	Topic         string  `json:"topic"`
	ID            string  `json:"id"`
	Position      string  `json:"position,omitempty"`
	Key           string  `json:"key,omitempty"`
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`
	// The following are those of a delivery, never published.
	Time       string            `json:"time,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Attempt    int               `json:"attempt,omitempty"`
	Generation uint64            `json:"generation,omitempty"`
}

func (m *message) sum() uint32 {
	if m.Payload != nil {
		return sumOf([]byte(*m.Payload))
	}
	return sumOf(m.PayloadBase64)
}

func sumOf(payload []byte) uint32 { return crc32.ChecksumIEEE(payload) }

type subscribeForm struct {
	Type   string `json:"type,omitempty"` // left out inside connect
	Sub    uint32 `json:"sub"`
	Filter string `json:"filter"`
	From   string `json:"from,omitempty"`
	// Of a member of a consumer.
	Consumer string        `json:"consumer,omitempty"`
	Settings *settingsForm `json:"settings,omitempty"`
	Window   int           `json:"window,omitempty"`
}

// settingsForm are those settings of a consumer that a plan can change.
type settingsForm struct {
	AckWaitMs     int64 `json:"ack_wait_ms"`
	BackoffBaseMs int64 `json:"backoff_base_ms"`
	BackoffCapMs  int64 `json:"backoff_cap_ms"`
	MaxDeliver    int   `json:"max_deliver"`
	Exclusive     bool  `json:"exclusive"`
	Ordered       bool  `json:"ordered"`
}

// settleForm is ack, nack, extend or reject.
type settleForm struct {
	Type       string      `json:"type"`
	Ref        uint32      `json:"ref"`
	Sub        uint32      `json:"sub"`
	Generation uint64      `json:"generation,omitempty"`
	Positions  []string    `json:"positions,omitempty"`
	Ranges     []rangeForm `json:"ranges,omitempty"`
	Confirm    bool        `json:"confirm,omitempty"`
	DelayMs    *int64      `json:"delay_ms,omitempty"`
	ByMs       int64       `json:"by_ms,omitempty"`
	Reason     string      `json:"reason,omitempty"`
}

type rangeForm struct {
	From    string `json:"from"`
	Through string `json:"through,omitempty"`
}

type connectForm struct {
	Type          string          `json:"type"`
	Ref           uint32          `json:"ref"`
	Client        string          `json:"client"`
	Subscriptions []subscribeForm `json:"subscriptions,omitempty"`
}

type publishForm struct {
	Type        string    `json:"type"`
	Ref         uint32    `json:"ref"`
	Messages    []message `json:"messages"`
	Resume      bool      `json:"resume,omitempty"`
	RepeatAgeMs int64     `json:"repeat_age_ms,omitempty"`
}

type unsubscribeForm struct {
	Type string `json:"type"`
	Sub  uint32 `json:"sub"`
}

type pongForm struct {
	Type string `json:"type"`
	Seq  uint32 `json:"seq"`
}
