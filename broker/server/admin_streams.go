package server

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

const (
	defaultTopics = 100
	maxTopics     = 1000

	// purgeTime is how long a purge may take before the answer is that it goes on.
	purgeTime = 30 * time.Second
)

// inspector shows operators what the streams hold.
type inspector struct {
	server  *Server
	busy    chan struct{} // has a token while topics are listed
	finding chan struct{} // has one while a message is looked for
}

// streamForm is a stream as operators see it.
type streamForm struct {
	Name     string     `json:"name"`
	Filters  []string   `json:"filters"`
	Storage  string     `json:"storage"`
	Messages uint64     `json:"messages"`
	Bytes    uint64     `json:"bytes"`
	Segments int        `json:"segments,omitempty"`
	Rate     float64    `json:"rate"` // per second, over the last minute
	PerTopic int        `json:"max_messages_per_topic,omitempty"`
	First    string     `json:"first,omitempty"`
	Last     string     `json:"last"`
	Oldest   *time.Time `json:"oldest,omitempty"`
	Newest   *time.Time `json:"newest,omitempty"`
}

func streamFormOf(i *broker.StreamInfo) streamForm {
	f := streamForm{
		Name: i.Name, Storage: i.Stats.Storage, Messages: i.Stats.Messages, Bytes: i.Stats.Bytes,
		Segments: i.Stats.Segments, Rate: i.Rate, PerTopic: i.Stats.PerTopic, Last: i.Last.String(), Filters: []string{},
	}
	for _, filter := range i.Filters {
		f.Filters = append(f.Filters, filter.String())
	}
	if i.Stats.Messages > 0 {
		f.First, f.Oldest, f.Newest = i.First.String(), &i.Stats.Oldest, &i.Stats.Newest
	}
	return f
}

// topicForm is a topic as operators see it.
type topicForm struct {
	Topic    string  `json:"topic"`
	Stream   string  `json:"stream"`
	Messages uint64  `json:"messages"`
	First    string  `json:"first"`
	Last     string  `json:"last"`
	Rate     float64 `json:"rate"` // per second, over the last minute
}

// streams is GET /v1/streams.
func (in *inspector) streams(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r); err != nil {
		writeProblem(w, err)
		return
	}
	streams := in.server.broker.Streams()
	forms := make([]streamForm, 0, len(streams))
	for i := range streams {
		forms = append(forms, streamFormOf(&streams[i]))
	}
	writeAdmin(w, map[string]any{"streams": forms})
}

// topics is GET /v1/topics.
func (in *inspector) topics(w http.ResponseWriter, r *http.Request) {
	query, stream, err := topicQuery(r)
	if err != nil {
		writeProblem(w, err)
		return
	}
	select {
	case in.busy <- struct{}{}: // it may look through whole indexes
		defer func() { <-in.busy }()
	case <-r.Context().Done():
		return
	}
	topics, failed := in.server.broker.Topics(r.Context(), stream, query)
	if failed != nil {
		writeProblem(w, in.server.refusal("list topics", failed))
		return
	}
	forms := make([]topicForm, 0, len(topics))
	distinct := 0
	for i, t := range topics {
		if i == 0 || t.Topic != topics[i-1].Topic {
			distinct++
		}
		forms = append(forms, topicForm{t.Topic, t.Stream, t.Messages, t.First.String(), t.Last.String(), t.Rate})
	}
	body := map[string]any{"topics": forms}
	if distinct == query.Limit {
		body["next"] = topics[len(topics)-1].Topic
	}
	writeAdmin(w, body)
}

func topicQuery(r *http.Request) (query storage.TopicQuery, stream string, err *protocol.Error) {
	q, err := parseQuery(r, "filter", "limit", "after", "stream")
	if err != nil {
		return query, "", err
	}
	query = storage.TopicQuery{After: q.Get("after"), Limit: defaultTopics}
	text := ">"
	if q.Has("filter") {
		text = q.Get("filter")
	}
	filter, failed := protocol.ParseFilter(text)
	if failed != nil {
		return query, "", protocol.AsError(failed)
	}
	query.Filter = filter
	if q.Has("limit") {
		if query.Limit, err = parseLimit(q.Get("limit"), maxTopics); err != nil {
			return query, "", err
		}
	}
	stream, err = parseStream(q)
	return query, stream, err
}

// purge is POST /v1/streams/{name}/purge. It removes what nobody can bring
// back, and the listener asks nobody who they are; so the name must be in the
// body too, and a page of a browser may not send it: no page may send this
// content type to a foreign listener without being let in first.
func (in *inspector) purge(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := in.confirmed(w, r, name); err != nil {
		writeProblem(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), purgeTime)
	defer cancel()
	through, err := in.server.broker.Purge(ctx, name)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		writeProblem(w, protocol.Errorf(protocol.CodeOverloaded, "the purge of %s goes on, but is not complete after %v: look again with /v1/streams", name, purgeTime))
		return
	case err != nil:
		writeProblem(w, in.server.refusal("purge", err))
		return
	}
	in.server.log.Warn("a stream was purged", "stream", name, "through", through.String())
	writeAdmin(w, map[string]string{"stream": name, "through": through.String()})
}

// confirmed returns nil if the body says which stream is meant.
func (in *inspector) confirmed(w http.ResponseWriter, r *http.Request, name string) *protocol.Error {
	if r.Header.Get("Origin") != "" {
		return protocol.Errorf(protocol.CodeBadOrigin, "pages may not purge: use `tidewire streams purge`, or curl")
	}
	text, err := in.body(w, r)
	if err != nil {
		return err
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var body struct {
		Confirm string `json:"confirm"`
	}
	if kind != "application/json" || json.Unmarshal(text, &body) != nil || body.Confirm != name {
		return protocol.Errorf(protocol.CodeBadRequest, "a purge cannot be undone: confirm it with the body {\"confirm\":%q} and Content-Type: application/json", name)
	}
	return nil
}

func writeAdmin(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = writeJSON(w, body)
}
