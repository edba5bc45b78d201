package influx

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/influxdata/influxdb/coordinator"
	"github.com/influxdata/influxdb/models"
	"github.com/influxdata/influxdb/query"
	"github.com/influxdata/influxdb/services/meta"
	"github.com/influxdata/influxdb/services/precreator"
	"github.com/influxdata/influxdb/services/retention"
	"github.com/influxdata/influxdb/tsdb"
	_ "github.com/influxdata/influxdb/tsdb/engine" // registers the storage engine
	_ "github.com/influxdata/influxdb/tsdb/index"  // registers the indexes
	"go.uber.org/zap"

	"github.com/citywarden/citywarden"
)

// CoreVersion is the version of InfluxDB whose storage core is built in.
const CoreVersion = "1.13.2"

// Core is InfluxDB's storage and query engine in this process. It opens no
// port. Writes are synced to its write-ahead log before they are answered.
type Core struct {
	dir string

	// mu is held for reading by every request and for writing while the engine
	// is opened or closed.
	mu     sync.RWMutex
	engine *engine // nil when closed
	closed bool

	suspectMu sync.Mutex
	suspect   *engine // failed a write in a way that only reopening heals
}

// OpenCore opens the core in dir, which only this process may use, and creates
// it when it is not there, readable for this user only. CodeInvalid for a path that is a
// pattern for filepath.Glob, with which InfluxDB looks for its files: it would not find those it has written.
func OpenCore(dir string) (*Core, error) {
	pattern := `*?[`
	if os.PathSeparator != '\\' {
		pattern += `\`
	}
	if i := strings.IndexAny(dir, pattern); i >= 0 {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "time series can't be kept in %s, because of the %c in it; choose another data folder", dir, dir[i])
	}
	e, err := openEngine(dir)
	if err != nil {
		return nil, fmt.Errorf("open series in %s: %w", dir, err)
	}
	return &Core{dir: dir, engine: e}, nil
}

// Close waits for running requests and closes the core. Later requests are
// answered with 503.
func (c *Core) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.engine == nil {
		return nil
	}
	err := c.engine.close()
	c.engine = nil
	return err
}

// Transport returns a RoundTripper that answers every request by the core,
// whatever host it is for, without a socket.
func (c *Core) Transport() http.RoundTripper { return transport{c.Handler()} }

var (
	errClosed     = errors.New("series are closed")
	errNoDatabase = errors.New("database not found")
)

// use calls f with the engine, which stays open meanwhile.
func (c *Core) use(f func(*engine) error) error {
	if err := c.heal(); err != nil {
		return err
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.engine == nil {
		return errClosed
	}
	return f(c.engine)
}

// write stores points. After a failed write of the log itself (a full disk) the
// engine can't write any more, also when there is room again: the next use
// closes and opens it.
func (c *Core) write(db, rp string, pts []models.Point) error {
	return c.use(func(e *engine) error {
		if e.meta.Database(db) == nil {
			return errNoDatabase
		}
		err := e.points.WritePoints(db, rp, models.ConsistencyLevelAny, nil, pts)
		var partial tsdb.PartialWriteError
		if err != nil && !errors.As(err, &partial) && !errors.Is(err, coordinator.ErrTimeout) {
			c.suspectMu.Lock()
			c.suspect = e
			c.suspectMu.Unlock()
		}
		return err
	})
}

// heal opens the engine again when its last write failed.
func (c *Core) heal() error {
	c.suspectMu.Lock()
	bad := c.suspect
	c.suspect = nil
	c.suspectMu.Unlock()
	if bad == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.engine != bad && c.engine != nil {
		return nil
	}
	if c.engine != nil {
		c.engine.close() // it is broken: what it says on closing tells nothing new
		c.engine = nil
	}
	e, err := openEngine(c.dir)
	if err != nil {
		c.suspectMu.Lock()
		c.suspect = bad
		c.suspectMu.Unlock()
		return fmt.Errorf("open series in %s again: %w", c.dir, err)
	}
	c.engine = e
	return nil
}

// engine is one opened instance of InfluxDB's parts.
type engine struct {
	meta    *meta.Client
	store   *tsdb.Store
	points  *coordinator.PointsWriter
	queries *query.Executor
	close   func() error
}

func openEngine(dir string) (_ *engine, err error) {
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()

	metaConfig := meta.NewConfig()
	metaConfig.Dir = filepath.Join(dir, "meta")
	metaConfig.LoggingEnabled = false
	for _, d := range []string{dir, metaConfig.Dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	e := &engine{meta: meta.NewClient(metaConfig)}
	if err := e.meta.Open(); err != nil {
		return nil, fmt.Errorf("meta data: %w", err)
	}
	closers = append(closers, e.meta.Close)

	data := tsdb.NewConfig()
	data.Dir = filepath.Join(dir, "data")
	data.WALDir = filepath.Join(dir, "wal")
	data.Index = coreIndex
	data.QueryLogEnabled = false
	data.CacheMaxMemorySize = 256 << 20 // a write past it is refused until a snapshot has made room
	// Series bounds how many there are, see cardinality; the engine's own limits are for another index.
	data.MaxSeriesPerDatabase, data.MaxValuesPerTag = 0, 0
	if err := data.Validate(); err != nil {
		return nil, err
	}
	e.store = tsdb.NewStore(data.Dir)
	e.store.EngineOptions.Config = data
	e.store.EngineOptions.EngineVersion = data.Engine
	e.store.EngineOptions.IndexVersion = data.Index
	e.store.WithLogger(zap.NewNop())

	e.points = coordinator.NewPointsWriter()
	e.points.TSDBStore = e.store
	e.points.MetaClient = e.meta
	e.points.Subscriber = noSubscriber{}

	e.queries = query.NewExecutor()
	e.queries.StatementExecutor = &coordinator.StatementExecutor{
		MetaClient:   e.meta,
		TaskManager:  e.queries.TaskManager,
		TSDBStore:    e.store,
		ShardMapper:  &coordinator.LocalShardMapper{MetaClient: e.meta, TSDBStore: coordinator.LocalTSDBStore{Store: e.store}},
		PointsWriter: e.points,
	}
	if err := freshSegments(data.WALDir); err != nil {
		return nil, fmt.Errorf("write-ahead log: %w", err)
	}
	if err := e.store.Open(); err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	closers = append(closers, e.store.Close)
	if err := e.points.Open(); err != nil {
		return nil, fmt.Errorf("points writer: %w", err)
	}
	closers = append(closers, e.points.Close, e.queries.Close)

	creator := precreator.NewService(precreator.NewConfig())
	creator.MetaClient = e.meta
	if err := creator.Open(); err != nil {
		return nil, fmt.Errorf("shard precreation: %w", err)
	}
	closers = append(closers, creator.Close)

	keeper := retention.NewService(retention.NewConfig())
	keeper.SetOSSMetaClient(e.meta)
	keeper.TSDBStore = e.store
	keeper.DropShardMetaRef = retention.OSSDropShardMetaRef(e.meta)
	if err := keeper.Open(); err != nil {
		return nil, fmt.Errorf("retention: %w", err)
	}
	closers = append(closers, keeper.Close)
	e.close = closeAll
	return e, nil
}

// freshSegments makes each shard begin a new segment of its write-ahead log. Left
// to itself it goes on at the end of the last one, and only then cuts off an entry
// that a full disk, a crash or a power cut left torn: what is written behind the gap
// is there until the next start and lost after it. An empty segment is removed at
// the opening, and the one after it is begun.
func freshSegments(dir string) error {
	shards, err := filepath.Glob(filepath.Join(dir, "*", "*", "*")) // database, retention policy, shard
	if err != nil {
		return err
	}
	for _, shard := range shards {
		segments, err := filepath.Glob(filepath.Join(shard, "_*.wal"))
		if err != nil {
			return err
		}
		last := 0
		for _, s := range segments {
			if n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(s), "_"), ".wal")); err == nil {
				last = max(last, n)
			}
		}
		if last == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(shard, fmt.Sprintf("_%05d.wal", last+1)), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// noSubscriber stands for nobody being subscribed to writes.
type noSubscriber struct{}

func (noSubscriber) Send(*coordinator.WritePointsRequest) {}

// queryTimeout ends a query of the core that takes longer.
const queryTimeout = 30 * time.Second
