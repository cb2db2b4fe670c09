package tidewire

import (
	"context"
	"errors"
	"fmt"
)

// A BatchError tells that some messages of a batch are not known to be stored.
type BatchError struct {
	// Errs has the error of each message, in the order of the batch, nil for those
	// that are stored: an [*Error] for a refusal, an [*UnknownOutcomeError] for one
	// that may be stored, or else why it was not sent.
	Errs []error
}

// Error says how many there are, and what is wrong with the first.
func (e *BatchError) Error() string {
	count, first := 0, -1
	for i, err := range e.Errs {
		if err == nil {
			continue
		}
		if count++; first < 0 {
			first = i
		}
	}
	if first < 0 {
		return "all messages of the batch are stored"
	}
	return fmt.Sprintf("%d of %d messages are not known to be stored; the first is message %d: %v", count, len(e.Errs), first, e.Errs[first])
}

// Unwrap returns the errors.
func (e *BatchError) Unwrap() []error {
	var list []error
	for _, err := range e.Errs {
		if err != nil {
			list = append(list, err)
		}
	}
	return list
}

// PublishBatch publishes messages, in their order, and waits until all are
// answered. The receipts are in the same order. If the error is a [*BatchError],
// it says which messages failed; the others have their receipts.
//
// It is as if [Client.Publish] were called for each, without waiting for the
// answers in between: many go into one frame and into one sync of the broker, and
// each is repeated over lost connections until it is answered or ctx ends. So a
// batch may be as large as you like, whatever the outbox holds; it is no
// transaction: others may publish in between, and a message that is refused stops
// no other. The same call with the same IDs and payloads stores nothing twice;
// messages without an ID get a new one with each call.
//
// POST /v1/messages (docs/http.md) does the same for programs without a client.
func (c *Client) PublishBatch(ctx context.Context, messages []Message) ([]Receipt, error) {
	out := make([]*outgoing, len(messages))
	errs := make([]error, len(messages))
	for i := range messages {
		out[i], errs[i] = c.enqueue(ctx, messages[i])
	}
	receipts := make([]Receipt, len(messages))
	for i, m := range out {
		if m == nil {
			continue
		}
		select {
		case <-m.done:
		case <-ctx.Done():
			c.withdraw(m, reason(ctx))
		}
		receipts[i], errs[i] = m.receipt, m.err
	}
	if errors.Join(errs...) != nil {
		return receipts, &BatchError{Errs: errs}
	}
	return receipts, nil
}
