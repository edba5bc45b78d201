// Package influx keeps the readings as time series in InfluxDB: in its storage
// core inside this process by default, or on a server.
//
//	core, err := influx.OpenCore(filepath.Join(dir, "series"))
//	defer core.Close()
//	series, err := influx.New(influx.Options{Transport: core.Transport(), Cursors: db})
//	defer series.Close()
//
//	pipeline.Attach(series) // it is the consumer "series" of the log
//	points, err := series.Query(ctx, citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "smoke", From: t})
//
// Both ways use the same client, the same writes and the same InfluxQL, so that
// going over to a server changes a URL and nothing else. A measurement is a
// domain; its tags are device, model, grid, site and zone; its fields are the
// metrics. Timestamps are in milliseconds.
package influx
