# citywarden: `make help` lists what can be made.
export CGO_ENABLED ?= 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_BUILD = -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
FUZZTIME ?= 10s
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: ## build bin/citywarden
	go build $(GOFLAGS_BUILD) -o bin/citywarden ./cmd/citywarden

.PHONY: run
run: build ## build and run the demo county (console on http://127.0.0.1:8080)
	./bin/citywarden serve --demo

.PHONY: test
test: ## run all tests
	go test -shuffle=on -timeout 15m ./...

.PHONY: race
race: ## run the tests under the race detector (needs a C compiler)
	@# Without the root package and app/demo, which start no goroutines and are slow under it.
	@# -cpu 1: the detector dies when two goroutines of a synctest bubble fire timers at once, golang/go#78156
	CGO_ENABLED=1 go test -race -cpu 1 -shuffle=on -timeout 20m \
		$$(go list ./... | grep -vxE 'github.com/citywarden/citywarden(/app/demo)?')

.PHONY: check
check: ## gofmt, vet, staticcheck, module files
	@f=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$f" ]; then echo "run gofmt -w on:"; echo "$$f"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go mod verify
	@echo check: all good

.PHONY: fuzz
fuzz: ## fuzz every decoder and the rule compiler for FUZZTIME each
	@go list -f '{{.Dir}}' ./... | while read -r d; do \
	  grep -ohE '^func Fuzz[A-Za-z0-9_]+' "$$d"/*_test.go 2>/dev/null | sed 's/^func //' | while read -r f; do \
	    echo "== $$f in $$d"; (cd "$$d" && go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) .) || exit 1; \
	  done || exit 1; \
	done

.PHONY: bench
bench: ## run all benchmarks, each beside its baseline
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-rules
bench-rules: ## run the rule engine's benchmarks, beside expr's VM over all rules of the model
	go test -run '^$$' -bench . -benchmem ./rules

.PHONY: bench-ingest
bench-ingest: ## run 400,000 messages through the platform, and beside it through mosquitto, telegraf and influxd
	BENCH_INGEST=400000 go test ./cmd/citywarden -run '^TestIngestBesidePeers$$' -v -timeout 20m

.PHONY: bench-devices
bench-devices: ## acknowledge over MQTT and CoAP beside mosquitto and libcoap, hold 10,000 connections, keep 100,000 devices
	BENCH_DEVICES=300000 go test ./cmd/citywarden -run '^TestAckedBesideMosquitto$$' -v -timeout 20m
	go test ./broker/mqtt -run '^TestTenThousandConnections$$' -v
	go test ./broker/mqtt ./broker/coap ./devices -run '^$$' -bench 'Acked|Post|Registry100k'

.PHONY: bench-overload
bench-overload: ## send for 10 minutes as fast as it goes to a platform that may use 512 MiB, and watch its memory
	BENCH_OVERLOAD=10m go test ./cmd/citywarden -run '^TestOverload$$' -v -timeout 20m

.PHONY: bench-map
bench-map: ## measure in Chromium when the console is ready, and how the map moves with 100,000 devices (software GL)
	BENCH_MAP=100000 go test ./cmd/citywarden -run '^TestManyDevicesOnTheMap$$' -v -timeout 10m

.PHONY: nightly
nightly: ## kill the platform 50 times under load, stop influxd for 5 minutes at full load, and look for what was acknowledged; look at every page in every look
	CRASH_ROUNDS=50 go test ./cmd/citywarden -run '^TestKillLosesNothing$$' -v -timeout 30m
	INFLUX_OUTAGE=5m go test ./cmd/citywarden -run '^TestInfluxDBAway$$' -v -timeout 40m
	CONSOLE_LOOKS=all go test ./cmd/citywarden -run '^TestEachPageIsFair$$' -v -timeout 20m

DIST = dashboards/console/dist dashboards/grafana/plugin/dist

.PHONY: web
web: ## build the console and the Grafana plugin's frontend (needs Node)
	cd dashboards/console/web && npm ci --no-audit --no-fund && npm run check && npm test && npm run build
	cd dashboards/grafana/plugin && npm ci --no-audit --no-fund && npm run check && npm test && npm run build

.PHONY: web-fresh
web-fresh: web ## prove that the committed web assets match their source
	@test -z "$$(git status --porcelain -- $(DIST))" || { git status --short -- $(DIST); echo "the committed assets are not what their source builds; commit what make web made"; exit 1; }

PLUGIN = artefacts/citywarden-datasource

.PHONY: plugin
plugin: ## build and pack the Grafana plugin into artefacts/
	rm -rf $(PLUGIN) && mkdir -p $(PLUGIN)
	cp -r dashboards/grafana/plugin/dist/. $(PLUGIN)/
	for p in linux/amd64 linux/arm64 windows/amd64 darwin/arm64; do \
	  os=$${p%/*}; arch=$${p#*/}; ext=; [ $$os = windows ] && ext=.exe; \
	  GOOS=$$os GOARCH=$$arch go build $(GOFLAGS_BUILD) -o $(PLUGIN)/gpx_citywarden_datasource_$${os}_$${arch}$$ext ./cmd/citywarden-datasource || exit 1; \
	done
	cd artefacts && rm -f citywarden-datasource.zip && go run ../cmd/citywarden-datasource/pack citywarden-datasource

.PHONY: clean
clean: ## remove what was built
	rm -rf bin artefacts
