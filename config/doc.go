// Package config says how a broker is set up: what the settings are, where
// their values come from, and which make sense.
//
// [Load] starts with [Default] and applies, in this order, a YAML file, the
// environment and flags; the last one wins. Each setting has one path, such as
// streams.main.retention_age; its variable is the path in capitals behind
// TIDEWIRE_, here TIDEWIRE_STREAMS_MAIN_RETENTION_AGE. Lists in variables are
// separated by commas; API keys, streams and consumers are numbered:
// TIDEWIRE_AUTH_API_KEYS_0_KEY. An empty variable counts as absent.
//
// Without any of them a broker keeps its data in ./tidewire-data, listens on
// this machine alone and takes everybody who can reach it.
//
// Every error is one sentence for the person who wrote the setting: it names
// the place, says what is wrong and what to write instead. A setting that
// nobody knows is an error too, since a misspelled limit or secret would be
// missed in silence.
//
// Values that must stay secret have the type [Secret], which prints as "(set)".
// The package knows nothing of the broker: cmd/tidewire turns a [Config] into
// the options of the packages that do the work.
package config
