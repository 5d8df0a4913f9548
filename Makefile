# Every target that people call has a comment after ##, which `make help` shows.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

GO ?= go

# The address and the data directory of `make run`, and the server that
# `make conformance` tests; without URL it builds and starts its own.
LISTEN ?= 127.0.0.1:4000
DATA_DIR ?= ./fastpaca-data
URL ?=

# How long each fuzz target runs, and arguments for the benchmark program.
FUZZTIME ?= 10s
BENCH ?= -run append,tail,idle,memory,start
BENCHTIME ?= 1s
MESSAGES ?= 5000000

# How long `make chaos` runs, and `make streams` if that is given. The seed is
# drawn and printed unless it is given; FROM is the number of the first fault, or
# round of streams, to begin where a run has failed.
CHAOS ?= 10m
STREAMS ?= 0
SEED ?= 0
FROM ?= 0

BIN := $(CURDIR)/bin/fastpaca
BLACKBOX := ./cmd/blackbox
# The black-box suites run as steps of their own, against a built binary.
UNIT = $$($(GO) list ./... | grep -v '/cmd/blackbox/')
# Everything that runs goroutines; the rest has nothing to race.
CONCURRENT := ./dataplane/... ./controlplane/... ./router/...
OTHERS = $$($(GO) list ./... | grep -v -e '/cmd/blackbox/' -e '/dataplane/' -e '/controlplane/' -e '/router/')

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z][a-z0-9-]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##
## Run
##

.PHONY: run
run: build ## Build and serve on LISTEN (127.0.0.1:4000), data in DATA_DIR (./fastpaca-data)
	@exec $(BIN) serve --listen $(LISTEN) --data-dir $(DATA_DIR)

.PHONY: build
build: ## Build bin/fastpaca
	@$(GO) build -trimpath -o $(BIN) ./cmd/fastpaca

##
## Check
##

.PHONY: test
test: tools lint unit race conformance faults cluster-short moves-short streams archive backup console browser infra readme ## Install what is missing, then run every check and test below

.PHONY: tools
tools: ## Install what the tests need beside Go, Node.js and a C compiler (Postgres server, Chromium)
	@.ci/install-tools

.PHONY: lint
lint: ## Formatting, go vet, staticcheck and the rules of this repository
	@.ci/lint

.PHONY: unit
unit: build ## Tests of every package but those that race runs
	@echo '== unit tests'
	@$(GO) test -shuffle=on -timeout 10m $(OTHERS)
	@cd sdk/go && FASTPACA_BIN=$(BIN) $(GO) test -shuffle=on -timeout 5m ./...

.PHONY: race
race: build ## Tests of the packages that run goroutines, with the race detector
	@echo '== tests with the race detector'
	@$(GO) test -race -shuffle=on -timeout 15m $(CONCURRENT)
	@cd sdk/go && FASTPACA_BIN=$(BIN) $(GO) test -race -timeout 5m .

.PHONY: conformance
conformance: build ## API conformance suite; URL=http://host:port tests a running server
	@echo '== conformance'
	@FASTPACA_BIN=$(BIN) FASTPACA_URL=$(URL) $(GO) test -count=1 -timeout 10m $(BLACKBOX)/conformance

.PHONY: faults
faults: build ## Crash and fault suite: kill -9, full disk, power loss, flipped bits (as root for all of it)
	@echo '== faults'
	@# Run in its directory: go test then shows what did not run, also when all passed.
	@cd $(BLACKBOX)/faults && FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout 15m -exec '$(CURDIR)/.ci/as-root'

# One cluster at a time: two would disturb each other on a small machine.
.PHONY: cluster
cluster: build ## Cluster fault suite: every fault of every role and pair, under load (10 minutes)
	@echo '== cluster'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout 60m -parallel 1 $(BLACKBOX)/cluster -chaos-seed $(SEED)

.PHONY: cluster-short
cluster-short: build ## The short part of it: one fault of each kind, and bad input (90 s)
	@echo '== cluster, short'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -short -timeout 20m -parallel 1 $(BLACKBOX)/cluster -chaos-seed $(SEED)

.PHONY: chaos
chaos: build ## Random faults for CHAOS (10m); SEED=n, and FROM=n to begin later, repeat those of a run
	@echo '== chaos'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -v -timeout 0 -run '^TestChaos$$' $(BLACKBOX)/cluster \
		-chaos $(CHAOS) -chaos-seed $(SEED) -chaos-from $(FROM)

.PHONY: moves
moves: build ## Kill control members at every step of a move, grow, drain, repair, under load (7 minutes)
	@echo '== moves'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout 30m -parallel 1 $(BLACKBOX)/moves

.PHONY: moves-short
moves-short: build ## The short part of it: a few of the steps, and bad input (1 min)
	@echo '== moves, short'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -short -timeout 15m -parallel 1 $(BLACKBOX)/moves

.PHONY: browser
browser: build ## JavaScript suites: SDK, npm phoenix, Chromium, generated clients, examples, against processes that are killed (2 to 4 minutes)
	@echo '== browser'
	@# Run in its directory: go test then shows what did not run, also when all passed.
	@cd $(BLACKBOX)/browser && FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout 20m

# Four at a time: most of them wait, for timeouts and for processes.
.PHONY: streams
streams: build ## Clients of streams through faults, and bad input (40 s); STREAMS=10m goes on for longer, SEED=n FROM=n repeat
	@echo '== streams'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout $(if $(filter 0,$(STREAMS)),10m,0) -parallel 4 $(BLACKBOX)/streams \
		-streams $(STREAMS) -streams-seed $(SEED) -streams-from $(FROM)

.PHONY: console
console: build ## Web console in Chromium, against a cluster whose parts are killed (1 min); SCREENSHOTS=dir keeps pictures
	@echo '== console'
	@cd $(BLACKBOX)/console && FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout 10m

# Each test has a PostgreSQL of its own.
.PHONY: archive
archive: build ## Kill servers, nodes and PostgreSQL around the archive, change rows by hand (1 min)
	@echo '== archive'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -short -timeout 10m $(BLACKBOX)/archive

.PHONY: archive-full
archive-full: build ## The same with longer histories and more rounds
	@echo '== archive, full'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout 30m $(BLACKBOX)/archive

.PHONY: backup
backup: build ## Back a cluster up under fire, restore it into clusters of other sizes (20 s)
	@echo '== backup'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout 10m $(BLACKBOX)/backup

.PHONY: readme
readme: build ## Run the quick start of README.md against a fresh server
	@echo '== readme'
	@FASTPACA_BIN=$(BIN) $(GO) test -count=1 -timeout 5m $(BLACKBOX)/readme

.PHONY: infra
infra: ## Check what infra holds as far as it takes seconds
	@infra/check cached

.PHONY: test-infra
test-infra: ## Check all of infra: modules, image, a cluster in containers (says what cannot run here)
	@infra/check

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (10s)
	@FUZZTIME=$(FUZZTIME) .ci/fuzz

##
## Measure
##

.PHONY: bench
bench: build ## Whole-process benchmarks beside PostgreSQL; BENCH='-run append -runs 5' selects
	@$(GO) build -trimpath -o bin/fastpaca-bench ./cmd/fastpaca-bench
	@.ci/install-tools
	@bin/fastpaca-bench -fastpaca $(BIN) $(BENCH)

.PHONY: soak
soak: build ## Load MESSAGES (5 million) and fail if memory follows
	@$(GO) build -trimpath -o bin/fastpaca-bench ./cmd/fastpaca-bench
	@bin/fastpaca-bench -fastpaca $(BIN) -run memory -messages $(MESSAGES) -check

.PHONY: bench-micro
bench-micro: ## Go benchmarks of every package, BENCHTIME (1s) each
	@$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) $(UNIT)

##
## Write
##

.PHONY: fmt
fmt: ## Format the Go code
	@gofmt -w $$(git ls-files -co --exclude-standard '*.go')

.PHONY: generate
generate: ## Regenerate all generated files: protobuf code, the OpenAPI documents
	@$(GO) generate ./...
	@cd sdk/go && $(GO) generate ./...
	@cd sdk/typescript && npm run --silent generate

.PHONY: openapi
openapi: ## Regenerate the documents in openapi/ from the handlers
	@$(GO) generate ./openapi
	@cd sdk/typescript && npm run --silent generate

.PHONY: clean
clean: ## Remove built programs (never data)
	@rm -rf bin
