package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/citywarden/citywarden"
)

const benchPayload = 256

// BenchmarkAppend has each producer wait until its record is synced before it
// sends the next. Compare it with the baselines of the same run: the disk alone, and the same
// stream with one message for each record.
func BenchmarkAppend(b *testing.B) {
	for _, producers := range []int{1, 64, 512} {
		b.Run(fmt.Sprint(producers), func(b *testing.B) {
			j := open(b, Options{Dir: b.TempDir()})
			run(b, j)
			produce(b, producers, func() error {
				r := uplink(0)
				r.Uplink.Payload = make([]byte, benchPayload)
				_, err := put(j, r)
				return err
			})
			b.ReportMetric(float64(b.N)/float64(j.Last().Group()), "records/group")
		})
	}
}

// BenchmarkBaselineMessages publishes each record as a message of its own.
func BenchmarkBaselineMessages(b *testing.B) {
	for _, producers := range []int{1, 64} {
		b.Run(fmt.Sprint(producers), func(b *testing.B) {
			j := open(b, Options{Dir: b.TempDir()})
			data := make([]byte, benchPayload)
			js, err := jetstream.New(j.conn)
			if err != nil {
				b.Fatal(err)
			}
			produce(b, producers, func() error {
				_, err := js.Publish(b.Context(), subject, data)
				return err
			})
		})
	}
}

// BenchmarkBaselineSync writes and syncs a file for each record: what one
// producer can reach at best.
func BenchmarkBaselineSync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "x"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, benchPayload)
	produce(b, 1, func() error {
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.Sync()
	})
}

// BenchmarkReadBack reads groups that are not in memory any more.
func BenchmarkReadBack(b *testing.B) {
	j := open(b, Options{Dir: b.TempDir()})
	run(b, j)
	var done sync.WaitGroup
	const n = 200_000
	done.Add(n)
	for range n {
		r := uplink(0)
		r.Uplink.Payload = make([]byte, benchPayload)
		j.Append(r, func(citywarden.Position, error) { done.Done() })
	}
	done.Wait()
	j.tail.recent = nil
	b.ResetTimer()
	read := 0
	for read < b.N {
		for after := citywarden.Position(0); after < j.Last() && read < b.N; {
			recs, err := j.Read(b.Context(), after)
			if err != nil {
				b.Fatal(err)
			}
			read += len(recs)
			after = citywarden.PositionAt(recs[0].Position.Group(), citywarden.MaxGroup-1)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// produce calls f b.N times from so many goroutines.
func produce(b *testing.B, producers int, f func() error) {
	b.Helper()
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	b.ResetTimer()
	var done sync.WaitGroup
	for range producers {
		done.Go(func() {
			for range work {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
