package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

const viaHTTP = "http"

// overHTTP sends messages that are not settled one by one, in order. It reports
// whether all went well; if not it has waited a while, and the caller comes
// again with what is left.
func (p *publisher) overHTTP(ctx context.Context, messages []*outgoing) bool {
	for _, m := range messages {
		p.glance()
		if m.settled {
			continue
		}
		if m.tries == 0 && p.load.stop.fired() {
			return true
		}
		if !rest(ctx, p.load.pace(1)) {
			return false
		}
		p.intend(m, viaHTTP)
		if err := p.log.flush(); err != nil {
			return false
		}
		err := p.post(ctx, m)
		_ = p.log.flush() // its error is told at the end
		if err != nil {
			p.opened++ // try the next broker
			p.stumble(ctx, err)
			return false
		}
	}
	return true
}

// post returns an error if the message must be sent again.
func (p *publisher) post(ctx context.Context, m *outgoing) error {
	target, err := endpoint(p.load.url(p.opened), "http", "/v1/topics/"+url.PathEscape(m.topic)+"/messages")
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(m.payload))
	if err != nil {
		return err
	}
	// Without it net/http repeats a POST with this header by itself, and an
	// attempt would not be in the file.
	req.GetBody = nil
	req.Header = bearer(p.load.plan.Tuning.Token)
	req.Header.Set("Idempotency-Key", m.id)
	if m.key != "" {
		req.Header.Set("Tidewire-Key", m.key)
	}
	resp, err := p.load.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		return p.posted(m, body)
	}
	if retryableStatus(resp.StatusCode) {
		return fmt.Errorf("the broker answers with status %d", resp.StatusCode)
	}
	var problem struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(body, &problem) // without a code the status tells
	if problem.Code == "" {
		problem.Code = fmt.Sprintf("status %d", resp.StatusCode)
	}
	p.refused(m, viaHTTP, problem.Code)
	return nil
}

func (p *publisher) posted(m *outgoing, body []byte) error {
	var answer struct {
		ID        string `json:"id"`
		Topic     string `json:"topic"`
		Position  string `json:"position"`
		Duplicate bool   `json:"duplicate"`
		Stored    bool   `json:"stored"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the answer to a POST cannot be read: %w", err)
	}
	if answer.ID != m.id || answer.Topic != m.topic || !answer.Stored {
		p.refused(m, viaHTTP, "an answer about something else: "+string(body))
		return nil
	}
	p.answer(m, viaHTTP, answer.Position, answer.Duplicate)
	return nil
}
