package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// spaceEvery is how often the disk is looked at: at 50 MB/s some 50 MB less are free by then.
const spaceEvery = time.Second

// Space watches the free space of the disk that the platform writes to, so that
// messages are refused while there is still room to deal with those that were
// acknowledged. What writes on a full disk breaks, see Journal.Run.
type Space struct {
	dir     string
	reserve uint64
	log     *slog.Logger
	free    atomic.Uint64
	full    atomic.Pointer[error] // nil while there is room
}

// SpaceOptions say what to watch.
type SpaceOptions struct {
	Dir     string                // on the disk
	Reserve int64                 // bytes that must be free
	Logger  *slog.Logger          // nil for slog.Default
	Metrics prometheus.Registerer // nil for none
}

// NewSpace returns a Space that has looked at the disk once. Where the free
// space can't be known (see room) it never says that the disk is full.
func NewSpace(o SpaceOptions) (*Space, error) {
	s := &Space{dir: o.Dir, reserve: uint64(o.Reserve), log: cmp.Or(o.Logger, slog.Default())}
	if err := s.look(); errors.Is(err, errors.ErrUnsupported) {
		s.log.Info("the free space of the disk can't be watched on this system")
		return s, nil
	} else if err != nil {
		return nil, fmt.Errorf("free space of %s: %w", o.Dir, err)
	}
	if o.Metrics == nil {
		return s, nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	for _, c := range []prometheus.Collector{
		gauge("citywarden_disk_free_bytes", "Free space of the disk of the data folder.", func() float64 { return float64(s.free.Load()) }),
		gauge("citywarden_disk_reserve_bytes", "Free space below which no message is acknowledged, log.reserve.", func() float64 { return float64(s.reserve) }),
		gauge("citywarden_disk_full", "1 while no message is acknowledged for want of free space.", func() float64 {
			if s.Full() != nil {
				return 1
			}
			return 0
		}),
	} {
		if err := o.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("disk metrics: %w", err)
		}
	}
	return s, nil
}

// Run looks at the disk every second until ctx is done.
func (s *Space) Run(ctx context.Context) error {
	t := time.NewTicker(spaceEvery)
	defer t.Stop()
	for failed := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		err := s.look()
		if err != nil && !failed && !errors.Is(err, errors.ErrUnsupported) {
			s.log.Error("free space not known", "dir", s.dir, "err", err)
		}
		failed = err != nil
	}
}

// look asks the disk once. The disk is full when less than the reserve is free,
// and has room again when an eighth more is: a disk at its edge does not go back and forth.
func (s *Space) look() error {
	free, _, err := room(s.dir)
	if err != nil {
		return err
	}
	s.free.Store(free)
	full := s.full.Load() != nil
	switch {
	case !full && free < s.reserve:
		err := citywarden.Errorf(citywarden.CodeTransient,
			"the disk of %s has %d MiB left of the %d MiB that log.reserve keeps free: make room, and messages are taken again", s.dir, free>>20, s.reserve>>20)
		s.full.Store(&err)
		s.log.Error("messages are not acknowledged: the disk is nearly full", "dir", s.dir, "free", free, "reserve", s.reserve)
	case full && free >= s.reserve+s.reserve/8:
		s.full.Store(nil)
		s.log.Warn("messages are acknowledged again: the disk has room", "dir", s.dir, "free", free)
	}
	return nil
}

// Free returns how many bytes are free on the disk of dir; errors.ErrUnsupported
// where that can't be known.
func Free(dir string) (uint64, error) {
	free, _, err := room(dir)
	return free, err
}

// Full returns nil while there is room for messages, else a CodeTransient error that says
// how much is missing.
func (s *Space) Full() error {
	if err := s.full.Load(); err != nil {
		return *err
	}
	return nil
}
