package influx

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/influxdata/influxdb/services/meta"
)

const metaFile = "meta"

// Backup writes what the core holds to files that create makes, while it goes
// on working: everything that was written before the call began is in them.
func (c *Core) Backup(create func(name string) (io.Writer, error)) error {
	return c.use(func(e *engine) error {
		b, err := e.meta.MarshalBinary()
		if err != nil {
			return fmt.Errorf("back up the series: %w", err)
		}
		w, err := create(metaFile)
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		for _, id := range e.store.ShardIDs() {
			if err := e.backupShard(id, create); err != nil {
				return fmt.Errorf("back up shard %d of the series: %w", id, err)
			}
		}
		return nil
	})
}

func (e *engine) backupShard(id uint64, create func(name string) (io.Writer, error)) error {
	// A backup alone leaves out what is in memory when a snapshot of that is
	// under way; this one waits for it.
	links, err := e.store.CreateShardSnapshot(id, false)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(links); err != nil {
		return err
	}
	w, err := create(shardFile(id))
	if err != nil {
		return err
	}
	return e.store.BackupShard(id, time.Time{}, w)
}

func shardFile(id uint64) string { return fmt.Sprintf("shards/%d.tar", id) }

// RestoreCore makes a core in dir, which must not be there, of the files of a
// Backup; open fails with os.ErrNotExist for one that is not there.
func RestoreCore(dir string, open func(name string) (io.ReadCloser, error)) (err error) {
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		return fmt.Errorf("restore the series: there are some in %s", dir)
	}
	f, err := open(metaFile)
	if err != nil {
		return fmt.Errorf("restore the series: %w", err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("restore the series: %w", err)
	}
	var d meta.Data
	if err := d.UnmarshalBinary(b); err != nil {
		return fmt.Errorf("restore the series: %w", err)
	}
	e, err := openEngine(dir)
	if err != nil {
		return fmt.Errorf("restore the series: %w", err)
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if err := e.meta.SetData(&d); err != nil {
		return fmt.Errorf("restore the series: %w", err)
	}
	for _, db := range d.Databases {
		for _, rp := range db.RetentionPolicies {
			for _, g := range rp.ShardGroups {
				for _, s := range g.Shards {
					if err := e.restoreShard(db.Name, rp.Name, s.ID, open); err != nil {
						return fmt.Errorf("restore shard %d of the series: %w", s.ID, err)
					}
				}
			}
		}
	}
	return nil
}

func (e *engine) restoreShard(db, rp string, id uint64, open func(name string) (io.ReadCloser, error)) (err error) {
	f, err := open(shardFile(id))
	if errors.Is(err, os.ErrNotExist) { // nothing was ever written to it
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := e.store.CreateShard(db, rp, id, true); err != nil {
		return err
	}
	return e.store.RestoreShard(id, f)
}
