package journal

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// startTimeout is how long the embedded server may take to recover its files.
const startTimeout = 2 * time.Minute

// startServer starts a NATS server in this process that listens nowhere and
// keeps its streams in dir. With sync each write is synced before it is acknowledged.
func startServer(dir string, sync bool, log *slog.Logger) (*server.Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("log directory: %w", err)
	}
	s, err := server.NewServer(&server.Options{
		ServerName:             "citywarden",
		DontListen:             true,
		NoSigs:                 true,
		NoSystemAccount:        true,
		DisableJetStreamBanner: true,
		JetStream:              true,
		StoreDir:               dir,
		SyncAlways:             sync,
		SyncInterval:           2 * time.Minute,
		JetStreamMaxMemory:     1 << 20, // no stream of ours lives in memory
		JetStreamMaxStore:      1 << 50, // the stream's own MaxBytes is the limit; the server's default would shrink as the disk fills
		MaxPayload:             maxPayload,
		MaxPending:             4 * maxPayload,
	})
	if err != nil {
		return nil, fmt.Errorf("configure embedded NATS: %w", err)
	}
	s.SetLoggerV2(natsLog{log}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(startTimeout) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("the durable log in %s does not start; see the messages before this one", dir)
	}
	return s, nil
}

// natsLog passes the server's messages on: they are free text, so they become
// an attribute. What the server calls fatal does not end the process; the
// writes that fail after it say so.
type natsLog struct{ log *slog.Logger }

func (l natsLog) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, "nats", "text", fmt.Sprintf(format, v...))
}

func (l natsLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }
func (l natsLog) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v) }
func (l natsLog) Fatalf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l natsLog) Errorf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l natsLog) Debugf(format string, v ...any)  { l.say(slog.LevelDebug, format, v) }
func (l natsLog) Tracef(format string, v ...any)  { l.say(slog.LevelDebug, format, v) }
