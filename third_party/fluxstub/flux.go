// Package flux takes the place of github.com/influxdata/flux when the embedded
// InfluxDB storage core is linked.
//
// The real module needs a Rust toolchain and cgo. Of it, the core compiles in
// only what influxdb/query/encode.go names: the declarations below and package
// csv. That file encodes the results of Flux queries; citywarden reads with
// InfluxQL, so none of this ever runs. The other packages are empty: they exist
// so that go mod tidy, which also looks at the tests of dependencies, finds them.
//
// It is our own text; nothing is copied from the real module.
package flux

import "io"

// DialectType names an encoding of query results.
type DialectType string

// ColReader reads the columns of a part of a table.
type ColReader any

// Table is a result table that is read part by part.
type Table interface {
	Do(func(ColReader) error) error
}

// TableIterator visits the tables of a result.
type TableIterator interface {
	Do(func(Table) error) error
}

// Result is one named result of a query.
type Result interface {
	Tables() TableIterator
}

// ResultIterator visits the results of a query; Release ends it, Err tells why
// it ended early.
type ResultIterator interface {
	More() bool
	Next() Result
	Release()
	Err() error
}

// MultiResultEncoder writes all results of a query and returns the number of bytes.
type MultiResultEncoder interface {
	Encode(w io.Writer, results ResultIterator) (int64, error)
}
