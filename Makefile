# One line for each target; what is longer lives in scripts/.
SHELL := /bin/bash
GO ?= go
TOOL = $(GO) tool -modfile=tools.mod
PKG ?= ./...
FUZZTIME ?= 20s
SOAKTIME ?= 10m
.DEFAULT_GOAL := help
.PHONY: help run cluster build test check race lint fuzz gen sdk bench soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## start a broker on this machine with --dev (needs Go alone)
	$(GO) run ./cmd/tidewire serve --dev

cluster: ## start Kafka, three brokers and a proxy on this machine (needs Go, Java 17 and Maven)
	@$(GO) run ./tests/cluster

build: ## build bin/tidewire
	@scripts/build

test: ## run every test with the race detector; list what was skipped
	scripts/test

check: ## the quick part, below two minutes: go vet and the short tests
	$(GO) vet $(PKG) && $(GO) test -short $(PKG)

race: ## every Go test of PKG with the race detector (PKG=./storage/...)
	$(GO) run ./scripts/gotest -race -count=1 -timeout=20m $(PKG)

lint: ## golangci-lint over PKG, as .golangci.yml says
	$(TOOL) golangci-lint run $(PKG)

fuzz: ## each fuzz target of PKG for FUZZTIME (20s)
	scripts/fuzz $(FUZZTIME) $(PKG)

gen: ## generate the code of proto/ (needs Node.js and npm)
	scripts/gen

sdk: ## build the browser SDK, which the broker serves (needs Node.js and npm)
	scripts/sdk

bench: ## measure, and print the ratios beside the limits of this machine
	scripts/bench

soak: ## the long versions of the tests of PKG, SOAKTIME (10m) each
	TIDEWIRE_SOAK=$(SOAKTIME) $(GO) run ./scripts/gotest -count=1 -timeout=24h $(PKG)

clean: ## remove what was built
	rm -rf bin proto/node_modules clients/js/node_modules clients/js/test/runtimes/node_modules clients/js/reference
