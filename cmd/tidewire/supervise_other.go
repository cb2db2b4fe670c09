//go:build !unix

package main

import (
	"context"
	"errors"
	"io"

	"github.com/tidewire/tidewire/config"
)

var errUnsupervised = errors.New("this system has no supervisor: leave --supervised out")

func supervised(context.Context, *Program, int) (context.Context, error) { return nil, errUnsupervised }

func supervise(context.Context, *config.Config, io.Writer, io.Writer) error { return errUnsupervised }
