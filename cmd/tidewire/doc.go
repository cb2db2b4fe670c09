// Command tidewire is the broker and its tools.
//
// A [Program] is the running broker as a value: Run(ctx) opens the log, serves
// both listeners until ctx ends, and lets its clients go in an orderly way.
// `tidewire serve` runs one, and so do tests. options.go is the one place that
// turns a configuration into the options of the packages that do the work.
//
// Every command says what went wrong in one sentence on standard error and ends
// with status 1. What is asked for goes to standard output, and nothing else.
package main
