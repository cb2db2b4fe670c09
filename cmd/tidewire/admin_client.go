package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/config"
)

// adminFlags say which broker to ask.
type adminFlags struct {
	url  string
	json bool
}

func (f *adminFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.url, "server", "http://"+config.Default().Admin, "`URL` of the broker's admin listener")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object a line")
}

const (
	adminTime     = time.Minute
	maxAdminBytes = 16 << 20
)

// call asks for path, or posts body to it if that is not nil, and reads the answer
// into result.
func (f *adminFlags) call(ctx context.Context, path string, body, result any) error {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	return f.request(ctx, method+" "+path, body, result)
}

// request makes a request, a method and a path, and reads the answer into result
// if that is not nil.
func (f *adminFlags) request(ctx context.Context, what string, body, result any) error {
	method, path, _ := strings.Cut(what, " ")
	base, err := f.base()
	if err != nil {
		return err
	}
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, adminTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, base+path, content)
	if err != nil {
		return fmt.Errorf("--server %q is not a URL: %w", f.url, err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return fmt.Errorf("cannot reach the admin listener at %s (%s): is the broker running? give its address with --server", base, reason(err))
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAdminBytes))
	if err != nil {
		return fmt.Errorf("the answer of %s broke off: %s", base, reason(err))
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return adminRefusal(base, response, text)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fmt.Errorf("%s does not answer as an admin listener: is --server the address of one?", base)
	}
	return nil
}

// base returns the URL without a path. A bare host:port will do.
func (f *adminFlags) base() (string, error) {
	text := f.url
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", fmt.Errorf("--server %q is not a URL: write it like http://%s", f.url, config.Default().Admin)
	}
	return u.Scheme + "://" + u.Host, nil
}

// adminRefusal makes a sentence of an answer that is a refusal.
func adminRefusal(base string, response *http.Response, text []byte) error {
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(text, &problem) == nil && problem.Detail != "" {
		return errors.New(problem.Detail)
	}
	return fmt.Errorf("%s answers %s: is --server the address of the admin listener?", base, response.Status)
}
