// Package devices knows the devices: which models there are and what they
// measure, which devices are registered, who may speak for them, when they were
// last heard and what their latest values are.
//
//	models, err := devices.LoadModels(devices.Builtin(), os.DirFS("models"))
//	reg, err := devices.New(ctx, db, models, devices.Options{})
//	go reg.Run(ctx) // keeps the latest values in the store
//
//	d, err := reg.Create(ctx, citywarden.Device{ID: "sd-1", Model: "smoke-detector"})
//	token, err := reg.IssueToken(ctx, d.ID)
//	id, err := reg.Authenticate(token) // "sd-1"
//
// All devices are held in memory: about 1 KB each.
package devices
