package ingest

import (
	"context"

	"github.com/citywarden/citywarden"
)

// Watch calls f with every message of a device that is decoded from now on, until
// ctx is done or f returns an error, which it returns. f may not change the
// entry. Whoever takes so long that the newest decoded groups don't go back far
// enough misses what lies between. Nothing is done for those who don't watch.
func (p *Pipeline) Watch(ctx context.Context, id citywarden.DeviceID, f func(citywarden.Entry) error) error {
	at := p.ring.newest()
	for ctx.Err() == nil {
		grown := p.ring.grown.wait() // before looking, so that no group is missed
		entries, ok := p.ring.after(at)
		if !ok {
			at = p.ring.newest()
			continue
		}
		if len(entries) == 0 {
			select {
			case <-grown:
			case <-ctx.Done():
			}
			continue
		}
		for _, e := range entries {
			if e.Uplink == nil || e.Uplink.Device != id {
				continue
			}
			if err := f(e); err != nil {
				return err
			}
		}
		at = last(entries)
	}
	return nil
}
