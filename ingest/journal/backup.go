package journal

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/citywarden/citywarden"
)

// backupVersion is the first byte of a backup. For each commit group follow,
// as uvarints, its number and its length, and then its bytes.
const backupVersion = 1

// Backup writes the commit groups that are kept to w, up to the newest at the
// time of the call, and returns the first and the last; 0 for an empty log.
// When the log is trimmed further than it has come the first is behind that; Restore leaves out what was written before.
// A log in which groups are missing that were not trimmed is an error: what is before them may be needed.
func (j *Journal) Backup(ctx context.Context, w io.Writer) (first, last uint64, err error) {
	out := bufio.NewWriter(w)
	if err := out.WriteByte(backupVersion); err != nil {
		return 0, 0, err
	}
	end := j.Last().Group()
	if j.first.Load() == 0 {
		return 0, 0, out.Flush()
	}
	for seq := j.first.Load(); seq <= end; seq++ {
		data, at, err := j.next(ctx, seq, end)
		if err != nil {
			return first, last, fmt.Errorf("back up the log at group %d: %w", seq, err)
		}
		gap := at > seq
		if gap {
			if err := j.trimmed(ctx, seq, at, end); err != nil {
				return first, last, fmt.Errorf("back up the log at group %d: %w", seq, err)
			}
		}
		if seq = at; seq > end {
			break
		}
		b := binary.AppendUvarint(nil, seq)
		b = binary.AppendUvarint(b, uint64(len(data)))
		if _, err := out.Write(append(b, data...)); err != nil {
			return first, last, err
		}
		if first == 0 || gap {
			first = seq
		}
		last = seq
	}
	return first, last, out.Flush()
}

// trimmed returns an error unless the groups from seq up to at, which are missing, lie before
// all that the stream has now; j.first may be behind that.
func (j *Journal) trimmed(ctx context.Context, seq, at, end uint64) error {
	info, err := j.stream.Info(ctx)
	if err != nil {
		return citywarden.Errorf(citywarden.CodeTransient, "%w", err)
	}
	from := info.State.FirstSeq
	if at <= from {
		return nil
	}
	what := fmt.Sprintf("group %d of the log is", seq)
	if at > seq+1 {
		what = fmt.Sprintf("groups %d to %d of the log are", seq, at-1)
	}
	return citywarden.Errorf(citywarden.CodeInternal, "%s missing between groups %d and %d, as when the disk is damaged, and can't be read again: keep the backups that you have, "+
		"and look for the cause in what the disk and NATS log; backups can be made again when the log is trimmed up to group %d, after log.max_age", what, from, end, at)
}

// Restore makes the log of an embedded server in dir of a Backup. It returns
// an error when dir holds a log already, or r is damaged.
func Restore(ctx context.Context, dir string, r io.Reader, log *slog.Logger) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("restore the log: %w", err)
		}
	}()
	in := bufio.NewReader(r)
	if v, err := in.ReadByte(); err != nil || v != backupVersion {
		return citywarden.Errorf(citywarden.CodeInvalid, "the backup of the log is of version %d, not %d: %w", v, backupVersion, err)
	}
	seq, data, err := nextGroup(in)
	if errors.Is(err, io.EOF) {
		return nil // an empty log
	}
	if err != nil {
		return err
	}
	s, err := startServer(dir, false, log)
	if err != nil {
		return err
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err == nil {
		err = pour(ctx, conn, seq, data, in, log)
		conn.Close()
	}
	s.Shutdown() // writes everything out
	s.WaitForShutdown()
	return errors.Join(err, syncTree(dir))
}

// pour makes the stream: the first group, and those in in.
func pour(ctx context.Context, conn *nats.Conn, seq uint64, data []byte, in *bufio.Reader, log *slog.Logger) error {
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	c := streamConfig(-1, 1)
	c.FirstSeq = seq
	stream, err := js.CreateStream(ctx, c)
	if err != nil {
		return err
	}
	for next := seq; ; next++ {
		if seq > next { // what is before was trimmed during the backup
			log.Warn("the log was trimmed while the backup was written; what is before is left out", "first_group", seq)
			if err := stream.Purge(ctx, jetstream.WithPurgeSequence(seq)); err != nil {
				return err
			}
			next = seq
		}
		if _, _, err := decodeGroup(seq, data); err != nil {
			return citywarden.Errorf(citywarden.CodeInvalid, "commit group %d is damaged: %w", seq, err)
		}
		ack, err := js.Publish(ctx, subject, data)
		if err != nil {
			return err
		}
		if ack.Sequence != seq {
			return citywarden.Errorf(citywarden.CodeInvalid, "commit group %d is missing", ack.Sequence)
		}
		if seq, data, err = nextGroup(in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// nextGroup reads a group of a backup; io.EOF at its end.
func nextGroup(in *bufio.Reader) (seq uint64, data []byte, err error) {
	if seq, err = binary.ReadUvarint(in); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(in)
	if err == nil && n > maxPayload {
		err = citywarden.Errorf(citywarden.CodeInvalid, "commit group %d of %d bytes", seq, n)
	}
	if err != nil {
		return 0, nil, noEOF(err)
	}
	data = make([]byte, n)
	_, err = io.ReadFull(in, data)
	return seq, data, noEOF(err)
}

// noEOF makes an end in the middle an error of its own.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// syncTree syncs every file and folder below dir.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
