package cases

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/citywarden/citywarden"
)

// sheetRow is one line of a table: its cells by the names of their columns.
type sheetRow struct {
	line  int
	cells map[string]string
	bad   error // the line can't be read
}

// sheet is a table that people made.
type sheet struct {
	columns []string
	rows    []sheetRow
}

func (s *sheet) has(column string) bool { return slices.Contains(s.columns, column) }

// readSheet reads CSV whose first line names its columns, some of those in known
// and all of those in must, in any case. What spreadsheets write is understood: a
// byte order mark, ';' or tabs instead of commas, GB 18030 instead of UTF-8.
func readSheet(raw []byte, known, must []string) (sheet, error) {
	var s sheet
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if !utf8.Valid(raw) {
		var err error
		if raw, err = simplifiedchinese.GB18030.NewDecoder().Bytes(raw); err != nil || bytes.ContainsRune(raw, utf8.RuneError) {
			return s, citywarden.Errorf(citywarden.CodeInvalid, "the file is neither UTF-8 nor GB 18030")
		}
	}
	in := csv.NewReader(bytes.NewReader(raw))
	first, _, _ := bytes.Cut(raw, []byte("\n"))
	for _, c := range []rune{';', '\t'} {
		if bytes.Count(first, []byte(string(c))) > bytes.Count(first, []byte(string(in.Comma))) {
			in.Comma = c
		}
	}
	in.FieldsPerRecord = -1
	header, err := in.Read()
	if err != nil {
		return s, citywarden.Errorf(citywarden.CodeInvalid, "line 1: no column names: %w", err)
	}
	for _, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case s.has(name):
			return s, citywarden.Errorf(citywarden.CodeInvalid, "line 1: column %q is there twice", name)
		case !slices.Contains(known, name):
			return s, citywarden.Errorf(citywarden.CodeInvalid, "line 1: unknown column %q; there are %s", name, strings.Join(known, ", "))
		}
		s.columns = append(s.columns, name)
	}
	for _, name := range must {
		if !s.has(name) {
			return s, citywarden.Errorf(citywarden.CodeInvalid, "line 1: there is no column %q", name)
		}
	}
	for {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			s.rows = append(s.rows, sheetRow{line: bad.StartLine, bad: err})
			continue
		}
		if err != nil {
			return s, fmt.Errorf("read CSV: %w", err)
		}
		row := sheetRow{cells: make(map[string]string, len(fields))}
		row.line, _ = in.FieldPos(0)
		for i, f := range fields[:min(len(fields), len(s.columns))] {
			row.cells[s.columns[i]] = citywarden.UnquoteCell(strings.TrimSpace(f))
		}
		if len(fields) != len(s.columns) {
			row.bad = fmt.Errorf("%d cells for %d columns", len(fields), len(s.columns))
		}
		s.rows = append(s.rows, row)
	}
}

// readAll reads an upload of at most MaxImport bytes, and says whether it is
// GeoJSON; else it is CSV.
func readAll(r io.Reader) (raw []byte, geo bool, err error) {
	raw, err = io.ReadAll(io.LimitReader(r, MaxImport+1))
	if err != nil {
		return nil, false, fmt.Errorf("read import: %w", err)
	}
	if len(raw) > MaxImport {
		return nil, false, citywarden.Errorf(citywarden.CodeInvalid, "the file is larger than %d MB; import it in parts", MaxImport>>20)
	}
	return raw, bytes.HasPrefix(bytes.TrimSpace(bytes.TrimPrefix(raw, []byte("\ufeff"))), []byte("{")), nil
}

// geoFeature is a feature of GeoJSON whose properties are a line of a table.
type geoFeature struct {
	row      sheetRow
	kind     string // of the geometry
	geometry json.RawMessage
}

// readFeatures reads a FeatureCollection; of its properties those in known, in any
// case, are kept as text. crs is what the file says its coordinates are, "" for nothing.
func readFeatures(raw []byte, known []string) (features []geoFeature, crs string, err error) {
	var fc struct {
		featureCollection
		Features []struct {
			Properties map[string]json.RawMessage `json:"properties"`
			Geometry   *struct {
				Type        string          `json:"type"`
				Coordinates json.RawMessage `json:"coordinates"`
			} `json:"geometry"`
		} `json:"features"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(raw, []byte("\ufeff")), &fc); err != nil {
		return nil, "", citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: %w", err)
	}
	if fc.Type != "FeatureCollection" {
		return nil, "", citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: type is %q, not FeatureCollection", fc.Type)
	}
	for i, f := range fc.Features {
		g := geoFeature{row: sheetRow{line: i + 1, cells: map[string]string{}}}
		for name, value := range f.Properties {
			if name = strings.ToLower(name); slices.Contains(known, name) {
				g.row.cells[name] = textOf(value)
			}
		}
		if f.Geometry != nil {
			g.kind, g.geometry = f.Geometry.Type, f.Geometry.Coordinates
		}
		features = append(features, g)
	}
	return features, fc.crs(), nil
}

// textOf returns a JSON value as a cell: texts as they are, lists with spaces
// between, null as nothing, the rest as JSON writes it.
func textOf(v json.RawMessage) string {
	var text *string
	if json.Unmarshal(v, &text) == nil {
		if text == nil {
			return ""
		}
		return strings.TrimSpace(*text)
	}
	var many []string
	if json.Unmarshal(v, &many) == nil {
		return strings.Join(many, " ")
	}
	return string(v)
}
