// Package csv takes the place of the flux package of that name: as much of it
// as influxdb/query/encode.go needs to compile.
package csv

import "io"

// ResultEncoderConfig has no settings here.
type ResultEncoderConfig struct{}

// DefaultEncoderConfig returns the only configuration there is.
func DefaultEncoderConfig() ResultEncoderConfig { return ResultEncoderConfig{} }

// ResultEncoder writes errors only.
type ResultEncoder struct{}

// NewResultEncoder returns a ResultEncoder; the configuration has no effect.
func NewResultEncoder(ResultEncoderConfig) *ResultEncoder { return &ResultEncoder{} }

// EncodeError writes the text of err to w.
func (*ResultEncoder) EncodeError(w io.Writer, err error) error {
	_, werr := io.WriteString(w, err.Error())
	return werr
}
