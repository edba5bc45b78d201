package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/citywarden/citywarden"
)

type seriesCmd struct {
	Export seriesExportCmd `cmd:"" help:"Print readings as CSV, or write them as Parquet."`
	Import seriesImportCmd `cmd:"" help:"Store readings of the past, from a CSV file like that of the export: they raise no alarms."`
}

type seriesExportCmd struct {
	remote
	Device []string `help:"Only of these devices." placeholder:"ID"`
	Metric []string `help:"Only these metrics." placeholder:"NAME"`
	From   past     `help:"From when on: ${past}; 24 hours before --to when left out." placeholder:"TIME"`
	To     past     `help:"Until when, exclusive, the same; now when left out." placeholder:"TIME"`
	Format string   `help:"csv or parquet." enum:"csv,parquet" default:"csv"`
	Out    string   `help:"File to write; standard output when left out." short:"o" placeholder:"FILE"`
}

// Run fetches the readings. A file gets its name only when it is whole.
func (s *seriesExportCmd) Run(ctx context.Context, o output) (err error) {
	c, err := s.client(ctx)
	if err != nil {
		return err
	}
	c.http.Timeout = 0
	q := url.Values{"format": {s.Format}}
	for k, v := range map[string]string{"device": strings.Join(s.Device, ","), "metric": strings.Join(s.Metric, ",")} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if err := c.moments(ctx, q.Set, map[string]moment{"from": s.From.moment, "to": s.To.moment}); err != nil {
		return err
	}
	path := "/series/export?" + q.Encode()
	if s.Out == "" {
		return c.call(ctx, "GET", path, nil, o.out)
	}
	tmp := s.Out + ".part"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // nothing is left of it after the renaming
	err = c.call(ctx, "GET", path, nil, io.Writer(f))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, s.Out)
}

type seriesImportCmd struct {
	remote
	File string `arg:"" help:"CSV with the columns time,device,metric,value; - for standard input."`
}

// importBytes is how much of a file is sent at a time.
const importBytes = 1 << 20

// importReport is what became of the lines of a file.
type importReport struct {
	Stored int `json:"stored"`
	Failed int `json:"failed"`
	Lines  []struct {
		Line  int    `json:"line"`
		Error string `json:"error"`
	} `json:"lines"`
}

// Run sends the file in parts. What was sent before an error is stored; the
// same file may be imported again.
func (s *seriesImportCmd) Run(ctx context.Context, o output) error {
	f := io.Reader(os.Stdin)
	if s.File != "-" {
		file, err := os.Open(s.File)
		if err != nil {
			return &usageError{err.Error()}
		}
		defer file.Close()
		f = file
	}
	c, err := s.client(ctx)
	if err != nil {
		return err
	}
	r := bufio.NewReader(f)
	head, err := r.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	total := importReport{}
	for before := 1; ; { // lines that were sent
		part, lines, err := readLines(r, importBytes)
		if err != nil {
			return err
		}
		if lines == 0 && before > 1 {
			break
		}
		var rep importReport
		if err := c.call(ctx, "POST", "/series/import", strings.NewReader(head+part), &rep); err != nil {
			return fmt.Errorf("%s from line %d: %w", s.File, before+1, err)
		}
		total.Stored += rep.Stored
		total.Failed += rep.Failed
		for _, l := range rep.Lines {
			l.Line += before - 1
			total.Lines = append(total.Lines, l)
		}
		if before += lines; lines == 0 {
			break
		}
	}
	if s.JSON {
		if err := toJSON(o.out, total); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(o.out, "%d readings stored, %d not\n", total.Stored, total.Failed)
		for _, l := range total.Lines {
			fmt.Fprintf(o.out, "%s:%d: %s\n", s.File, l.Line, l.Error)
		}
	}
	if total.Failed > 0 {
		return citywarden.Errorf(citywarden.CodeInvalid, "%d readings were not stored", total.Failed)
	}
	return nil
}

// readLines reads whole lines until there are size bytes of them. A text in
// quotes that goes over several lines is not taken apart.
func readLines(r *bufio.Reader, size int) (part string, lines int, err error) {
	var b strings.Builder
	quotes := 0
	for b.Len() < size || quotes%2 != 0 {
		line, err := r.ReadString('\n')
		if line != "" {
			b.WriteString(line)
			lines++
			quotes += strings.Count(line, `"`)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", 0, err
		}
	}
	return b.String(), lines, nil
}
