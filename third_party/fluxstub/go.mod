// Replaces github.com/influxdata/flux; see flux.go.
module github.com/influxdata/flux

go 1.26
